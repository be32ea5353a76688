"""docs/model_zoo.md is what the metafiles say, and the metafiles are what configs say."""
import subprocess
import sys

import pytest
import yaml
from mmengine.config import Config

from fastervit_mm.weights import PUBLISHED, resolve
from tests.conftest import REPO

TOOL = REPO / 'tools/make_model_zoo.py'
INDEX = REPO / 'model-index.yml'
MODELS = [(REPO / name, model) for name in yaml.safe_load(INDEX.read_text())['Import']
          for model in yaml.safe_load((REPO / name).read_text())['Models']]


def make(*arguments):
    return subprocess.run([sys.executable, '-W', 'ignore', str(TOOL), *map(str, arguments)],
                          capture_output=True, text=True)


def test_the_committed_page_is_what_the_metafiles_give(tmp_path):
    done = make('--out', tmp_path / 'page.md')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'page.md').read_text() == (REPO / 'docs/model_zoo.md').read_text(), (
        'run  python tools/make_model_zoo.py')


def test_every_config_is_in_it_with_its_figures():
    page = (REPO / 'docs/model_zoo.md').read_text()
    rows = {line.split('`')[1]: line for line in page.splitlines() if line.startswith('| `')}
    configs = {str(p.relative_to(REPO)) for kind in ('mmdet', 'mmseg', 'mmpretrain')
               for p in (REPO / 'configs' / kind).glob('*.py')}
    assert set(rows) == configs
    for _, model in MODELS:
        row = rows[model['Config']]
        for result in model.get('Results', []):
            for value in result['Metrics'].values():
                assert f'| {value} |' in row
        if 'paper' in model['Metadata'].get('Results Source', ''):
            assert 'not re-trained here' in row


def test_a_published_detector_stands_apart_with_its_command():
    """In the README too, and on a page of its own."""
    (model, name), = ((m, m['Metadata']['Published Detector']) for _, m in MODELS
                      if 'Published Detector' in m['Metadata'])
    assert resolve(name).startswith('https://')
    zoo, readme, page = ((REPO / path).read_text() for path in (
        'docs/model_zoo.md', 'README.md', 'docs/dino.md'))
    section = zoo.split('## FasterViT DINO, published by the authors, COCO')[1].split('\n## ')[0]
    assert '55.16 | published by the authors, not evaluated here |' in section
    for text in (section, readme):
        assert 'published by the authors, checked by evaluation: not here, no data' in text.replace(
            '\n', ' ')
    for text in (section, readme, page):
        assert f'python tools/test.py {model["Config"]} {name}' in text


@pytest.mark.parametrize('model', [m for _, m in MODELS if 'Published Weights' in m['Metadata']],
                         ids=lambda m: m['Name'])
def test_what_the_page_says_of_published_weights_is_so(model):
    """Also that the config compares with the figures of the page."""
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


@pytest.mark.parametrize('model', [m for _, m in MODELS if 'Published Weights'
                                   not in m['Metadata']], ids=lambda m: m['Name'])
def test_what_the_page_says_of_a_config_is_so(model):
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
