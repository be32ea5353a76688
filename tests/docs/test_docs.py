"""Commands and code of the pages work, or are marked with what they need.

Blocks of docs/own_data.md are run by test_own_data.py, test_detector_by_hand.py and
test_segmentor_by_hand.py, those after ``make demo`` by benchmarks/tests/test_demo.py.
"""
import importlib
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from tests import samples
from tests.conftest import REPO, load_program
from tests.docs.pages import PAGES, fences, tool_call, words
from tests.running import run_tool

BASH = [(fence, command) for fence in fences('bash') for command in fence.commands]
PYTHON = list(fences('python'))
OURS = [(fence, call) for fence, command in BASH if (call := tool_call(command))]
# How a launcher passes its arguments on to a tool.
LAUNCHERS = {
    'tools/dist_train.sh': lambda a: ['tools/train.py', a[0], *a[2:]],
    'tools/dist_test.sh': lambda a: ['tools/test.py', a[0], a[1], *a[3:]],
    'tools/slurm_train.sh': lambda a: ['tools/train.py', a[2], '--work-dir', a[3], *a[4:]],
}


@pytest.mark.parametrize('fence, call', OURS, ids=[f'{f}-{" ".join(c)[:60]}' for f, c in OURS])
def test_programs_accept_the_arguments_of_the_pages(fence, call, monkeypatch, capsys):
    """Also where a block is marked: program, options and configs exist."""
    assert (REPO / call[0]).is_file()
    for word in call:
        if word.startswith(('configs/', 'benchmarks/configs/')):
            assert (REPO / word.split('=')[0]).exists(), word
    if call[0] in LAUNCHERS:
        call = LAUNCHERS[call[0]](call[1:])
    if call[0].endswith('.sh'):
        return
    program = (importlib.import_module(call[0].removesuffix('.py').replace('/', '.'))
               if call[0].startswith('benchmarks/') else load_program(call[0]))
    if not hasattr(program, 'parse_args'):
        return
    monkeypatch.setattr(sys, 'argv', call)
    monkeypatch.setenv('LOCAL_RANK', '0')  # what a tool sets is taken back
    try:
        # tools/make_*.py take their arguments from the caller.
        program.parse_args(*[call[1:]] if call[0].startswith('tools/make_') else [])
    except SystemExit as error:
        pytest.fail(f'{fence}: {" ".join(call)}: exit {error.code}: {capsys.readouterr().err}')


@pytest.mark.parametrize('command', sorted({c for _, c in BASH if words(c)[0] == 'make'}))
def test_make_has_the_targets_of_the_pages(command):
    done = subprocess.run([*words(command), '-n'], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    """The repository's files as a clone has them."""
    folder = tmp_path_factory.mktemp('docs') / 'fastervit_mm'
    listed = subprocess.run(['git', 'ls-files', '-coz', '--exclude-standard'], cwd=REPO, text=True,
                            capture_output=True, check=True).stdout
    for name in filter(None, listed.split('\0')):
        if (REPO / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, folder / name)
    return folder


def run(command, folder):
    call = tool_call(command)
    if call and call[0].startswith('tools/'):
        done = run_tool(Path(call[0]).name, *call[1:], cwd=folder)
        assert done.returncode == 0, f'{command}\n{done.output[-3000:]}'
        return done.output
    path = f'{os.path.dirname(sys.executable)}:{os.environ["PATH"]}'
    done = subprocess.run(['bash', '-ec', command], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, 'PATH': path, 'PYTHONWARNINGS': 'ignore'})
    assert done.returncode == 0, f'{command}\n{(done.stdout + done.stderr)[-3000:]}'
    return done.stdout + done.stderr


def test_commands_without_a_mark_run_in_a_clone(copy):
    """All but make's, which are the tests themselves, the demos and the environment."""
    plain = {c for fence, c in BASH if not fence.mark and words(c)[0] not in ('make', '.')}
    assert plain
    for command in plain:
        run(command, copy)


@pytest.mark.long
def test_the_detector_of_the_demo_is_evaluated_as_the_page_says(copy, session_folder):
    """On the first twenty images, with a detector that is not trained."""
    from fastervit_mm.engine import launch
    cfg = launch.load_config(str(copy / 'configs/mmdet/cascade_fvit_shapes.py'))
    samples.link_shapes(copy, session_folder)
    init_default_scope(cfg.default_scope)
    demo = copy / 'work_dirs/demo'
    demo.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()),
               demo / f'epoch_{cfg.max_epochs}.pth')
    command, = (c for fence, c in BASH if fence.page.name == 'evaluate.md'
                and fence.mark == 'after: make demo')
    output = run(f'{command} --cfg-options test_dataloader.dataset.indices=20 '
                 'test_dataloader.num_workers=0 test_dataloader.persistent_workers=False', copy)
    assert 'coco/bbox_mAP' in output
    assert (demo / 'predictions.pkl').exists() and list((demo / 'shown').iterdir())


def test_python_blocks_run(copy):
    """In one process, each block in a fresh namespace."""
    plain = [f for f in PYTHON if not f.title and not f.mark]
    script = copy / 'blocks.py'
    script.write_text('import fastervit_mm  # in every environment of ours\n' + '\n'.join(
        f'exec(compile({f.text!r}, {str(f)!r}, "exec"), {{"__name__": "block"}})' for f in plain))
    run('python blocks.py', copy)


CONFIGS = [f for f in PYTHON if f.title and f.text.startswith('_base_')]


def test_configs_of_the_pages_build_a_backbone_that_fits(copy):
    for fence in CONFIGS:
        (copy / fence.title).write_text(fence.text)
    for fence in CONFIGS:
        cfg = Config.fromfile(str(copy / fence.title))
        with torch.device('meta'):
            reader = cfg.model.get('neck') or cfg.model.decode_head
            assert MODELS.build(cfg.model.backbone).out_channels == tuple(
                reader.in_channels), str(fence)


def test_the_site_builds_strictly_and_asks_no_network(tmp_path):
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'mkdocs', 'build', '--strict', '--config-file',
         str(REPO / 'mkdocs.yml'), '--site-dir', str(tmp_path / 'site')], capture_output=True,
        text=True, cwd=tmp_path, env={**os.environ, 'NO_MKDOCS_2_WARNING': '1'})
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / 'site').rglob('*.html'))
    assert {p.stem for p in (REPO / 'docs').glob('*.md')} <= {p.stem for p in pages}
    for page in pages:
        # Links lead elsewhere; nothing is fetched from there.
        for tag in re.findall(r'<(?:script|img|link|iframe)\b[^>]*>', page.read_text()):
            if 'rel="canonical"' not in tag:
                assert not re.search(r'(?:src|href)="?(?:https?:)?//', tag), f'{page.name}: {tag}'


@pytest.mark.parametrize('page', ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'SECURITY.md'])
def test_links_outside_of_the_site_lead_to_files(page):
    text = (REPO / page).read_text()
    for target in re.findall(r'\]\(([^)\s]+)\)', text):
        assert '://' in target or (REPO / target.split('#')[0]).exists(), target


def test_paths_in_the_pages_exist():
    """Code spans with a full path from the clone's root."""
    pattern = (r'`((?:configs|tools|docker|docs|tests|fastervit_mm|benchmarks|\.github)'
               r'/[\w./*-]*)`')
    for page in PAGES:
        for path in re.findall(pattern, page.read_text()):
            assert list(REPO.glob(path.rstrip('/'))), f'{page.name}: {path}'


def test_versions_on_the_install_page_are_those_of_setup(monkeypatch):
    page = (REPO / 'docs/install.md').read_text()
    given = {}
    monkeypatch.setattr('setuptools.setup', given.update)
    monkeypatch.chdir(REPO)
    runpy.run_path(str(REPO / 'setup.py'))
    required = [*given['install_requires'], *given['extras_require']['openmmlab']]
    pins = (REPO / 'constraints.txt').read_text()
    rows = re.findall(r'^\| ([\w-]+)[\w, -]* \| `([\w-]+[<>=][^`]+)` \| ([\d.]+)', page, re.M)
    assert len(rows) == 6
    for name, allowed, tested in rows:
        assert allowed in required
        assert re.search(rf'^{name}=={re.escape(tested)}$', pins, re.M), name
