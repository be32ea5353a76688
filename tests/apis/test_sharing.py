"""Folders for the Hub give the networks that they were written from, and run no code."""
import json
import re
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import ModelCard
from mmengine.config import Config
from PIL import Image

from fastervit_mm.apis import Inferencer
from fastervit_mm.apis.sharing import check_folder, share, timm_sizes
from fastervit_mm.config_files import config_names, config_path, get_config, read_config
from fastervit_mm.config_text import CONFIG_TEXT, config_to_text, read_config_text
from fastervit_mm.models import build_model, find_backbones, load_model
from fastervit_mm.weights import CheckpointError
from tests.conftest import TINY, stir
from tests.imagenet.test_preprocessing import PUBLISHED as PREPROCESSING
from tests.running import run_tool

pytestmark = pytest.mark.filterwarnings('ignore::UserWarning')
CLASSES = ['cat', 'dog (small)', 'cow']
FIGURES = {'accuracy/top1': 61.5, 'data_time': 0.1, 'time': 0.2}


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """Config and checkpoint of a small classifier, images prepared as ImageNet's are."""
    folder = tmp_path_factory.mktemp('classifier')
    cfg = Config.fromfile(config_path('mmpretrain/fastervit-0_in1k'))
    cfg.model.backbone.arch = TINY
    cfg.model.head.update(num_classes=3, in_channels=128, topk=(1, ))
    cfg.dump(folder / 'pets.py')
    model = build_model(cfg)
    stir(model)
    torch.save(dict(meta=dict(epoch=12, dataset_meta=dict(classes=CLASSES)),
                    state_dict=model.state_dict()), folder / 'epoch_12.pth')
    return str(folder / 'pets.py'), str(folder / 'epoch_12.pth')


@pytest.fixture(scope='module')
def shared(classifier, tmp_path_factory):
    """The folder that the tool writes from it."""
    here = tmp_path_factory.mktemp('shared')
    (here / 'metrics.json').write_text(f'{{"step": 0}}\n{json.dumps(FIGURES)}\n')
    done = run_tool('share.py', 'write', *classifier, 'pets', '--license', 'cc-by-4.0',
                    '--metrics', 'metrics.json', '--trained-by', 'python tools/train.py pets.py',
                    cwd=here)
    assert done.returncode == 0, done.output
    assert 'pets: ImageClassifier with FasterViT, as timm\'s fastervit_0\n' in done.stdout
    assert done.stdout.endswith('hf upload OWNER/pets pets .\n')
    return here / 'pets'


@pytest.fixture(scope='module')
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp('photo') / 'photo.png'
    noise = torch.randint(256, (61, 90, 3), dtype=torch.uint8, generator=torch.Generator())
    Image.fromarray(noise.numpy()).resize((301, 260)).save(path)
    return str(path)


def values_of(cfg):
    """A config's values, but those of one run."""
    return {key: value for key, value in cfg.to_dict().items()
            if key not in ('work_dir', 'launcher', 'load_from', 'resume')}


def timms(folder, **options):
    return timm.create_model(f'local-dir:{folder}', pretrained=True, **options).eval()


def scores(prediction):
    return {best['name']: best['score'] for best in prediction.top}


def test_a_classifiers_predictions_are_timms_from_its_folder(classifier, shared, photo):
    expected = scores(Inferencer(*classifier, device='cpu')(photo).predictions[0])
    model = timms(shared)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with Image.open(photo) as image, torch.no_grad():
        found = model(transform(image)[None]).softmax(1)[0].tolist()
    names = model.pretrained_cfg['label_names']
    assert dict(zip(names, found)) == pytest.approx(expected, rel=1e-4)
    assert len({round(score, 3) for score in found}) == 3, 'scores that tell nothing'
    ours = Inferencer(str(shared), str(shared / 'model.safetensors'), device='cpu')
    assert scores(ours(photo).predictions[0]) == pytest.approx(expected, rel=1e-6)
    assert list(ours.classes) == CLASSES


@pytest.mark.parametrize('name', ['fastervit-0_in1k', 'fastervit-2_in1k',
                                  'fastervit-4-21k_224_in1k', 'fastervit-4-21k_768_in1k'])
def test_timm_resizes_and_crops_as_the_published_networks_need(name):
    size, fraction, mode = PREPROCESSING[name]
    cfg = get_config(f'mmpretrain/{name}')
    found = timm_sizes(cfg, 3)
    assert (found['input_size'], found['crop_mode'], found['interpolation']) == (
        (3, size, size), mode, 'bicubic')
    assert int(size / found['crop_pct']) == int(size / fraction)
    cfg.test_dataloader.dataset.pipeline[1] = dict(type='Resize', scale=(256, 300), keep_ratio=True)
    with pytest.raises(ValueError, match='the test pipeline does not'):
        timm_sizes(cfg, 3)


def test_the_card_says_how_the_network_was_made(shared):
    assert {path.name for path in shared.iterdir()} == {
        'README.md', 'config.json', 'model.safetensors', CONFIG_TEXT}
    card = ModelCard.load(shared / 'README.md')
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == (
        'cc-by-4.0', 'timm', 'image-classification')
    result, = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ('accuracy/top1', 61.5)
    for said in ('`python tools/train.py pets.py`', '| epoch | 12 |', '--license cc-by-4.0',
                 'ImageNet', '3 classes'):
        assert said in card.text, said


def test_a_detector_is_read_back_with_its_classes(detector, tiny_coco, tmp_path):
    photos = sorted(str(path) for path in (tiny_coco / 'val2017').iterdir())[:1]
    said = share(*detector, tmp_path / 'shared', license='mit')
    assert 'CascadeRCNN with FasterViT, not a model of timm' in said
    done = run_tool('share.py', 'read', 'shared', cwd=tmp_path)
    assert done.returncode == 0 and 'infer.py shared shared/model.safetensors' in done.stdout
    expected, found = (Inferencer(*given, device='cpu')(photos, score_thr=0.) for given in (
        detector, (str(tmp_path / 'shared'), str(tmp_path / 'shared/model.safetensors'))))
    assert found.classes == expected.classes
    for ours, theirs in zip(found.predictions, expected.predictions, strict=True):
        assert ours.instances and ours.instances == theirs.instances


@pytest.mark.long
def test_a_segmentor_is_read_back(segmentor, tmp_path):
    share(*segmentor, tmp_path / 'shared', license='mit')
    cfg = read_config(tmp_path / 'shared')
    assert cfg.to_dict() == values_of(read_config(segmentor[0]))
    found = load_model(cfg, str(tmp_path / 'shared/model.safetensors'))
    expected = load_model(read_config(segmentor[0]), segmentor[1])
    image = torch.rand(1, 3, 70, 97)
    with torch.no_grad():
        assert torch.equal(found(image, mode='tensor'), expected(image, mode='tensor'))


def test_a_detectors_backbone_is_timms_and_has_the_licence_of_its_origin(detector, tmp_path):
    tuned, folder = tmp_path / 'tuned.py', tmp_path / 'backbone'
    text = Path(detector[0]).read_text()
    tuned.write_text(f'{text}\nload_from = "fastervit://0-224-1k"')
    assert 'as timm\'s fastervit_0' in share(tuned, detector[1], folder, backbone=True)
    assert check_folder(folder).startswith(f'{folder}: fastervit_0')
    card = ModelCard.load(folder / 'README.md')
    assert (card.data.license, card.data.base_model) == ('other', 'ahatamiz/FasterViT')
    assert 'non-commercial use' in card.text and 'init_cfg' in card.text
    own = find_backbones(load_model(read_config(detector[0]), detector[1]))[0]
    ours = timms(folder, features_only=True)
    image = torch.rand(1, 3, 100, 133)
    with torch.no_grad():
        maps = ours(image)
        for i, expected in enumerate(own(image)):
            torch.testing.assert_close(own.out_norms[str(i)](maps[i]), expected)


@pytest.mark.parametrize('text, reason', [
    ('__import__("os").mkdir("run")', 'more than plain values'),
    ('dict(model=1)', 'more than plain values'),
    ('[1]', 'holds a list'),
    ("{'custom_imports': {'imports': ['antigravity']}}", "custom_imports='antigravity'"),
    ("{'model': {'type': 'subprocess.Popen', 'args': 'ls'}}", 'name of a registered class'),
    ("{'model': {'type': 'mmengine.load', 'file': 'x'}}", 'name of a registered class'),
    ("{'a': [{'nms': {'type': '__import__(\"os\").getcwd()'}}]}", 'name of a registered class'),
    ("{'a': {'dtype': 'hub.load(\"a/b\", \"c\")'}}", "a.dtype='hub.load"),
    ("{'a': {'ann_file': 'x.pkl'}}", 'unpickle'),
    ("{'a': {'trust_remote_code': True}}", 'trust_remote_code: not allowed'),
])
def test_a_config_that_could_run_code_is_refused(text, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / CONFIG_TEXT).write_text(text)
    with pytest.raises(ValueError, match=re.escape(reason)):
        read_config(tmp_path)
    assert not (tmp_path / 'run').exists()


def test_what_cannot_be_shared_is_said(classifier, tmp_path):
    config, checkpoint = classifier
    out = tmp_path / 'out'
    (tmp_path / 'empty.json').write_text('{"time": 1}')
    with pytest.raises(ValueError, match='license=None'):
        share(config, checkpoint, out)
    with pytest.raises(ValueError, match='has no metrics'):
        share(config, checkpoint, out, license='mit', metrics=tmp_path / 'empty.json')
    with pytest.raises(FileExistsError, match='exists already'):
        share(config, checkpoint, tmp_path, license='mit')
    text = Path(config).read_text()
    (tmp_path / 'own_code.py').write_text(f'{text}\ncustom_imports = dict(imports=["json"])')
    with pytest.raises(ValueError, match='custom_imports=\'json\''):
        share(tmp_path / 'own_code.py', checkpoint, out, license='mit')
    (tmp_path / 'bgr.py').write_text(f'{text}\ndata_preprocessor["to_rgb"] = False')
    with pytest.raises(ValueError, match='takes BGR'):
        share(tmp_path / 'bgr.py', checkpoint, out, backbone=True, license='mit')
    assert not out.exists()


def test_a_folder_with_other_weights_is_refused(shared, tmp_path):
    for path in shared.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    text = (tmp_path / CONFIG_TEXT).read_text()
    (tmp_path / CONFIG_TEXT).write_text(text.replace("'num_classes': 3", "'num_classes': 4"))
    with pytest.raises(CheckpointError, match='does not fit'):
        check_folder(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize('name', config_names())
def test_every_config_is_the_same_from_its_text(name, tmp_path):
    cfg = get_config(name)
    (tmp_path / CONFIG_TEXT).write_text(config_to_text(cfg))
    assert read_config_text(tmp_path).to_dict() == values_of(cfg)
