"""The documentation is true: what it tells people to type works, or is marked with what it needs.

Blocks of the pages for one's own data are run by test_own_data.py, test_finetune.py and
test_finetune_seg.py.
"""
import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import samples
from tests.conftest import REPO, load_program
from tests.docs.pages import PAGES, fences, tool_call, words
from tests.running import run_tool

BASH = list(fences('bash'))
PYTHON = list(fences('python'))
SITE = REPO / 'mkdocs.yml'

# Commands that this suite runs elsewhere, by their first words: where.
ELSEWHERE = {
    'make demo': 'benchmarks/tests/test_demo.py::test_it_learns_for_real',
    'make demo-cls': 'benchmarks/tests/test_demo_cls.py::test_it_learns_for_real',
    'make demo-hat': 'benchmarks/tests/test_demo_hat.py::test_only_carriers_see_what_is_far',
    'python -m benchmarks.long_range':
        'benchmarks/tests/test_long_range_study.py::test_it_goes_on_with_what_is_missing',
    **{f'python tools/{command}': 'benchmarks/tests/test_demo_cls.py::'
       'test_its_checkpoint_starts_a_segmentor_as_the_page_says'
       for command in ('convert_weights.py', 'train.py configs/mmseg/upernet_fvit_shapes.py')},
    # This suite is what `make test` runs, in the environment that `make env` makes.
    'make test': 'tests/docs/test_docs.py::test_make_does_what_is_run_elsewhere',
    'make env': 'tests/docs/test_docs.py::test_make_does_what_is_run_elsewhere',
    '. .venv/bin/activate': 'tests/docs/test_docs.py::test_make_does_what_is_run_elsewhere',
    **{f'python $FVIT/tools/{name}.py':
       'tests/docs/test_own_data.py::test_from_a_folder_to_a_network_by_the_page_alone'
       for name in ('new_config', 'browse_dataset', 'train', 'test', 'infer', 'export')},
    'python $FVIT/tools/prepare_data.py check --ann':
        'tests/docs/test_finetune.py::test_the_check_finds_what_is_wrong',
    'python $FVIT/tools/prepare_data.py check --label-maps':
        'tests/docs/test_finetune_seg.py::test_the_check_finds_what_is_wrong',
    'python -m benchmarks.speed':
        'benchmarks/tests/test_speed.py::test_every_case_has_figures_or_a_reason',
    'python -m benchmarks.high_resolution':
        'benchmarks/tests/test_high_resolution.py::'
        'test_it_goes_on_with_what_is_missing',
    'python -m benchmarks.operators':
        'benchmarks/tests/test_operators.py::test_the_program_counts_and_saves',
    # These very lines.
    **{f'python tools/{name}.py':
       'benchmarks/tests/test_demo.py::test_what_the_pages_say_to_do_then'
       for name in ('visualize', 'infer', 'browse_dataset')},
    'python tools/swap_backbone.py': 'tests/swapping/test_swapping.py::test_from_a_terminal',
    # Where a tool's own tests are: a file that starts it.
    **{f'python tools/{name}.py': f'{name}.py' for name in ('plot_logs', 'export', 'demo_app')},
}
# Commands that are run here, in a copy of the repository.
HERE = ['python -c', 'python tools/test.py configs/mmdet/cascade_fvit_shapes.py',
        'python tools/complexity.py', 'python tools/make_model_zoo.py']


def first_of(command, table):
    found = [key for key in table if command == key or command.startswith(key + ' ')]
    return max(found, key=len, default=None)


def unmarked():
    """Commands that a reader with this repository alone can type."""
    return [(fence, command) for fence in BASH for command in fence.commands
            if not (fence.mark and 'needs:' in fence.mark)]


def test_every_command_is_run_or_marked():
    assert len(BASH) >= 15 and len(unmarked()) >= 5
    for fence, command in unmarked():
        assert first_of(command, ELSEWHERE) or first_of(command, HERE), (
            f'{fence}: {command!r}: nothing runs it. Mark the block, such as '
            '<!-- needs: coco, gpu -->, or have a test run it and name it here')


@pytest.mark.parametrize('key', ELSEWHERE)
def test_what_is_run_elsewhere_is(key):
    used = [f'{fence}' for fence in BASH for command in fence.commands
            if first_of(command, ELSEWHERE) == key]
    assert used, f'{key}: no page has it; take it out of ELSEWHERE'
    if ELSEWHERE[key].startswith('tests/'):
        path, name = ELSEWHERE[key].split('::')
        assert name in functions_in(REPO / path), f'{used}: {key}: no {ELSEWHERE[key]}'
        return
    starts = re.compile(rf"""tools[/'", ]+{re.escape(ELSEWHERE[key])}""")
    assert any(starts.search(path.read_text()) and functions_in(path)
               for path in (REPO / 'tests').rglob('test_*.py') if path.parent.name != 'docs'), (
        f'{used}: no test starts tools/{ELSEWHERE[key]}')


def functions_in(path):
    if not path.is_file():
        return []
    return [node.name for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef) and node.name.startswith('test_')]


def test_make_does_what_is_run_elsewhere():
    """What the targets call is what the tests call; the rest of a target is not hidden work."""
    make = (REPO / 'Makefile').read_text()
    assert re.search(r'^test: env\n\t\$\(RUN\) -m pytest', make, re.M)
    assert re.search(r'^env:\n(?:\t.*\n)*?\t@\$\(PYTHON\) tools/make_env\.py$', make, re.M)
    assert re.search(r'^lint: env\n\t\$\(RUN\) -m ruff', make, re.M)
    # The suite runs in such an environment.
    assert os.path.basename(sys.prefix) == '.venv' and os.path.exists(
        os.path.join(sys.prefix, 'bin', 'activate'))


@pytest.fixture(scope='module')
def parsers():
    """The tools' own parsers, each loaded once."""
    loaded = {}

    def parser(script):
        if script not in loaded:
            loaded[script] = load_program(script)
        return loaded[script].parse_args

    return parser


# How a launcher hands its arguments on to a tool.
LAUNCHERS = {
    'tools/dist_train.sh': lambda a: ['tools/train.py', a[0], *a[2:]],
    'tools/dist_test.sh': lambda a: ['tools/test.py', a[0], a[1], *a[3:]],
    'tools/slurm_train.sh': lambda a: ['tools/train.py', a[2], '--work-dir', a[3], *a[4:]],
    'tools/slurm_test.sh': lambda a: ['tools/test.py', a[2], a[3], *a[4:]],
}


TOOL_CALLS = [(fence, call) for fence in BASH for command in fence.commands
              if (call := tool_call(command))]


@pytest.mark.parametrize('fence, call', TOOL_CALLS,
                         ids=[f'{f}-{" ".join(c)[:60]}' for f, c in TOOL_CALLS])
def test_tools_take_what_the_pages_give_them(fence, call, parsers, monkeypatch, capsys):
    """Marked or not: the tool, its options and its configs are there."""
    assert (REPO / call[0]).is_file(), f'{fence}: no {call[0]}'
    for word in call:
        if word.startswith('configs/'):
            assert (REPO / word).exists(), f'{fence}: no {word}'
    if call[0] in LAUNCHERS:
        call = LAUNCHERS[call[0]](call[1:])
    if call[0] == 'tools/make_env.py':
        assert len(call) == 1  # it takes nothing
        return
    monkeypatch.setattr(sys, 'argv', call)
    monkeypatch.setenv('LOCAL_RANK', '0')  # what a tool sets is taken back
    try:
        parsers(call[0])()
    except SystemExit as error:
        pytest.fail(f'{fence}: {" ".join(call)}: exit {error.code}: {capsys.readouterr().err}')


def test_make_targets_exist():
    phony = (REPO / 'Makefile').read_text().split('.PHONY:')[1].split('\n')[0].split()
    for fence in BASH:
        for command in fence.commands:
            found = words(command)
            if found[0] == 'make':
                targets = [w for w in found[1:] if '=' not in w]
                assert set(targets) <= set(phony), f'{fence}: {command}'


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
    """The repository's files as a clone has them, and what `make demo` leaves.

    The detector there is untrained: what is run is the command, not its figures.
    """
    folder = tmp_path_factory.mktemp('docs') / 'fastervit_mm'
    listed = subprocess.run(['git', 'ls-files', '-coz', '--exclude-standard'], cwd=REPO, text=True,
                            capture_output=True, check=True).stdout
    for name in filter(None, listed.split('\0')):
        if (REPO / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPO / name, folder / name)
            shutil.copymode(REPO / name, folder / name)
    return folder


def run(command, folder):
    call = tool_call(command)
    if call and not call[0].startswith('tools/make_'):  # these write where they are
        done = run_tool(Path(call[0]).name, *call[1:], cwd=folder)
        assert done.returncode == 0, f'{command}\n{done.output[-3000:]}'
        return done.output
    path = f'{os.path.dirname(sys.executable)}:{os.environ["PATH"]}'
    done = subprocess.run(['bash', '-ec', command], cwd=folder, capture_output=True, text=True,
                          env={**os.environ, 'PATH': path, 'PYTHONWARNINGS': 'ignore'})
    assert done.returncode == 0, f'{command}\n{(done.stdout + done.stderr)[-3000:]}'
    return done.stdout + done.stderr


def here():
    return list(dict.fromkeys(c for _, c in unmarked() if first_of(c, HERE)
                              and not first_of(c, ELSEWHERE)))


def test_commands_that_need_nothing_do_their_work(copy):
    simple = [c for c in here() if 'tools/test.py' not in c]
    assert simple
    for command in simple:
        run(command, copy)


def test_a_demo_is_evaluated_as_the_page_says(copy, session_folder):
    """On the twenty first pictures, with a detector that is not trained."""
    from fastervit_mm.engine import launch
    config = 'configs/mmdet/cascade_fvit_shapes.py'
    cfg = launch.load_config(str(copy / config))
    samples.link_shapes(copy, session_folder)
    from mmengine.registry import MODELS, init_default_scope
    init_default_scope(cfg.default_scope)
    demo = copy / 'work_dirs/demo'
    demo.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), demo / 'epoch_6.pth')
    assert cfg.max_epochs == 6  # so that is the demo's last checkpoint
    commands = [c for c in here() if 'tools/test.py' in c]
    assert commands
    for command in commands:
        output = run(f'{command} --cfg-options test_dataloader.dataset.indices=20 '
                     'test_dataloader.num_workers=0 test_dataloader.persistent_workers=False',
                     copy)
        assert 'coco/bbox_mAP' in output
        for option in ('--out', '--show-dir'):
            if option in command:
                assert (copy / words(command)[words(command).index(option) + 1]).exists()


def test_python_blocks_run(copy):
    """One process for all: each block begins anew, as a reader's would."""
    plain = [f for f in PYTHON if not f.title and not f.mark]
    assert len(plain) >= 8
    script = copy / 'blocks.py'
    script.write_text('import fastervit_mm  # in every environment of ours\n' + '\n'.join(
        f'exec(compile({f.text!r}, {str(f)!r}, "exec"), {{"__name__": "block"}})' for f in plain))
    run('python blocks.py', copy)


def test_config_blocks_are_configs(copy):
    """Those with a name inherit ours; README's goes into any config of mmdet."""
    from mmengine.config import Config
    from mmengine.registry import MODELS
    titled = [f for f in PYTHON if f.title]
    assert all(f.title.endswith('.py') for f in titled)
    for fence in titled:
        (copy / fence.title).write_text(fence.text)
    configs = [f for f in titled if f.text.startswith('_base_')]
    assert len(configs) >= 4
    for fence in configs:
        cfg = Config.fromfile(str(copy / fence.title))
        assert cfg.model.backbone.type == 'FasterViT'
        with torch.device('meta'):
            reader = cfg.model.get('neck') or cfg.model.decode_head
            assert MODELS.build(cfg.model.backbone).out_channels == tuple(
                reader.in_channels), str(fence)
        if 'third_split' in fence.title:
            val, test = (cfg[f'{s}_dataloader'].dataset for s in ('val', 'test'))
            assert test.keys() == val.keys() and test.data_prefix.keys() == val.data_prefix.keys()
            assert all('test' in folder for folder in test.data_prefix.values())
            assert not any('test' in folder for folder in val.data_prefix.values())
    readme, = [f for f in PYTHON if f.page.name == 'README.md' and 'custom_imports' in f.text]
    path = copy / 'readme_config.py'
    path.write_text("_base_ = 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'\n" + readme.text)
    cfg = Config.fromfile(str(path))
    with torch.device('meta'):
        assert MODELS.build(cfg.model.backbone).out_channels == tuple(cfg.model.neck.in_channels)
    assert cfg.model.backbone.init_cfg.checkpoint == 'fastervit://2-224-1k'


def test_the_site_builds_strictly_and_asks_no_network(tmp_path):
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'mkdocs', 'build', '--strict', '--config-file',
         str(SITE), '--site-dir', str(tmp_path / 'site')], capture_output=True, text=True,
        cwd=tmp_path, env={**os.environ, 'NO_MKDOCS_2_WARNING': '1'})
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / 'site').rglob('*.html'))
    assert len(pages) > 10
    assert {p.stem for p in PAGES if p.parent.name == 'docs'} <= {p.stem for p in pages}
    for page in pages:
        # Links lead elsewhere; nothing is fetched from there.
        for tag in re.findall(r'<(?:script|img|link|iframe)\b[^>]*>', page.read_text()):
            if 'rel="canonical"' not in tag:
                assert not re.search(r'(?:src|href)="?(?:https?:)?//', tag), f'{page.name}: {tag}'


def test_links_of_the_readme_lead_somewhere():
    text = (REPO / 'README.md').read_text()
    targets = [t.split('#')[0] for t in re.findall(r'\]\(([^)\s]+)\)', text) if '://' not in t]
    assert len(targets) >= 10
    for target in targets:
        assert (REPO / target).exists(), target


def test_paths_that_pages_name_exist():
    """In code spans: files of the repository, by their whole path."""
    pattern = r'`((?:configs|tools|docker|docs|tests|fastervit_mm)/[\w./*-]+)`'
    seen = 0
    for page in PAGES:
        for path in re.findall(pattern, page.read_text()):
            seen += 1
            assert list(REPO.glob(path.rstrip('/'))), f'{page.name}: {path} is not there'
    assert seen >= 10


def test_versions_on_the_install_page_are_those_of_setup(monkeypatch):
    page = (REPO / 'docs/install.md').read_text()
    said = re.findall(r'^\| [\w, -]+ \| `([\w-]+)((?:[<>=]=?[\d.]+,?)+)` \|', page, re.M)
    assert len(said) == 6
    given = {}
    monkeypatch.setattr('setuptools.setup', given.update)
    monkeypatch.chdir(REPO)
    runpy.run_path(str(REPO / 'setup.py'))
    required = [*given['install_requires'], *given['extras_require']['openmmlab']]
    for name, versions in said:
        assert f'{name}{versions}' in required
    pins = (REPO / 'constraints.txt').read_text()
    for name, tested in re.findall(r'^\| ([\w-]+)[\w, ]* \| `[^`]+` \| ([\d.]+)', page, re.M):
        assert re.search(rf'^{name}=={re.escape(tested)}$', pins, re.M), name


def test_the_image_uses_what_is_there():
    """Not built here (docs/install.md says so); its files and versions can be looked at."""
    text = (REPO / 'docker/Dockerfile').read_text()
    for source in re.findall(r'^COPY (\S+) ', text, re.M):
        assert (REPO / source).exists()
    assert 'PIP_CONSTRAINT=' in text and "'.[openmmlab]'" in text
    ignored = (REPO / 'docker/Dockerfile.dockerignore').read_text().split()
    assert {'.venv', 'data', 'work_dirs', '.git'} <= set(ignored)


def test_syncbn_on_a_cpu_says_what_the_page_says(tmp_path):
    """It minds a distributed job alone, which the page's first sentence relies on."""
    norm = torch.nn.SyncBatchNorm(4)
    norm(torch.rand(2, 4, 8, 8))
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/join', rank=0,
                                         world_size=1)
    try:
        with pytest.raises(ValueError, match='SyncBatchNorm expected input tensor to be on GPU'):
            norm(torch.rand(2, 4, 8, 8))
    finally:
        torch.distributed.destroy_process_group()
    assert 'SyncBatchNorm expected input tensor to be on GPU' in (REPO / 'docs/faq.md').read_text()
