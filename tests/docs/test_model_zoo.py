"""docs/model_zoo.md agrees with the metafiles, and these with the configs."""
import subprocess
import sys

import pytest
import yaml
from mmengine.config import Config

from benchmarks.recipes import RECIPES
from fastervit_mm.weights import PUBLISHED, resolve
from tests.conftest import REPO

TOOL = REPO / 'tools/make_model_zoo.py'
INDEX = REPO / 'model-index.yml'
MODELS = [model for name in yaml.safe_load(INDEX.read_text())['Import']
          for model in yaml.safe_load((REPO / name).read_text())['Models']]
PUBLISHED_ONES = [m for m in MODELS if 'Published Weights' in m['Metadata']]


def make(*arguments):
    return subprocess.run([sys.executable, '-W', 'ignore', str(TOOL), *map(str, arguments)],
                          capture_output=True, text=True)


def test_the_committed_page_equals_the_generated_one(tmp_path):
    done = make('--out', tmp_path / 'page.md')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'page.md').read_text() == (REPO / 'docs/model_zoo.md').read_text(), (
        'run  python tools/make_model_zoo.py')


def test_every_config_has_an_entry_and_every_figure_a_row():
    assert {m['Config'] for m in MODELS} == {
        str(p.relative_to(REPO)) for kind in ('mmdet', 'mmseg', 'mmpretrain')
        for p in (REPO / 'configs' / kind).glob('*.py')}
    page = (REPO / 'docs/model_zoo.md').read_text()
    page, costs = page.split('## Recipes')
    rows = {line.split('`')[1]: line for line in page.splitlines() if line.startswith('| `')}
    assert set(rows) == {m['Config'] for m in MODELS if 'Results' in m}
    assert all(f'| `configs/{name}.py` |' in costs for name in RECIPES)
    for model in MODELS:
        for result in model.get('Results', []):
            assert all(f'| {value} |' in rows[model['Config']]
                       for value in result['Metrics'].values())


def test_the_published_detector_has_an_address():
    name, = (m['Metadata']['Published Detector'] for m in MODELS
             if 'Published Detector' in m['Metadata'])
    assert resolve(name).startswith('https://')


@pytest.mark.parametrize('model', PUBLISHED_ONES, ids=lambda m: m['Name'])
def test_metafiles_and_configs_of_published_weights_agree(model):
    """Also the figures that evaluations are compared with."""
    cfg, meta = Config.fromfile(str(REPO / model['Config'])), model['Metadata']
    assert meta['Backbone'] == f'FasterViT-{cfg.model.backbone.arch}'
    assert resolve(meta['Published Weights']) in PUBLISHED.values()
    pipeline = cfg.test_dataloader.dataset.pipeline
    assert meta['Image Size'] == pipeline[2].crop_size
    fraction, mode = meta['Crop'].split()
    resized = int(meta['Image Size'] / float(fraction))
    assert pipeline[1].scale == (resized if mode == 'center' else (resized, resized))
    hook = cfg.custom_hooks[-1]
    assert hook.type == 'PublishedFiguresHook' and hook.figures.test == {
        f'accuracy/{name.replace("-", "")}': value
        for name, value in model['Results'][0]['Metrics'].items()}


@pytest.mark.parametrize('model', [m for m in MODELS if m not in PUBLISHED_ONES],
                         ids=lambda m: m['Name'])
def test_metafiles_and_configs_agree(model):
    cfg, meta = Config.fromfile(str(REPO / model['Config'])), model['Metadata']
    start = cfg.model.backbone.get('init_cfg') or {}
    assert meta.get('Pretrained Backbone') == start.get('checkpoint')
    assert meta.get('Epochs', cfg.train_cfg.get('max_epochs')) == cfg.train_cfg.get('max_epochs')
    assert meta.get('Iterations') == cfg.train_cfg.get('max_iters')
    assert meta['Batch Size'] == cfg.auto_scale_lr.base_batch_size
    if 'Crop Size' in meta:
        assert {meta['Crop Size']} == set(cfg.crop_size)
    if isinstance(cfg.model.backbone.arch, str):
        assert meta['Backbone'] == f'{cfg.model.backbone.type}-{cfg.model.backbone.arch}'


@pytest.mark.parametrize('caveat', ['not re-trained here', 'not evaluated here'])
def test_a_figure_of_unknown_origin_is_refused(caveat, tmp_path):
    index = yaml.safe_load(INDEX.read_text())
    for name in index['Import']:
        (tmp_path / name).parent.mkdir(parents=True)
        text = (REPO / name).read_text()
        (tmp_path / name).write_text(text.replace(f'; {caveat}', ''))
    (tmp_path / 'model-index.yml').write_text(yaml.safe_dump(index))
    done = make('--index', tmp_path / 'model-index.yml', '--out', tmp_path / 'page.md')
    assert done.returncode == 1 and f'say "{caveat}"' in done.stderr
    assert 'Traceback' not in done.stderr and not (tmp_path / 'page.md').exists()
