"""A config's model as mmengine's runner builds it, its datasets and its images."""
import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseTTAModel, MMDistributedDataParallel
from mmengine.runner import Runner
from PIL import Image
from torch import nn

from fastervit_mm import FasterViT, models, pipelines
from tests.conftest import CLASSIFIER, TINY, stir

STEPS = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 48)),
         dict(type='mmseg.LoadAnnotations'), dict(type='PackSegInputs')]


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """mmpretrain's way: ``data_preprocessor`` beside the model."""
    path = tmp_path_factory.mktemp('classifier') / 'classifier.py'
    path.write_text(CLASSIFIER)
    return Config.fromfile(path)


def joined(*datasets):
    """A dataset that repeats the first and joins it with the others."""
    first, *others = datasets
    return dict(type='ConcatDataset', datasets=[
        dict(type='RepeatDataset', times=2, dataset=first), *others])


def segmentation(dataset):
    return Config(dict(default_scope='mmseg', test_dataloader=dict(dataset=dataset)))


def test_a_model_equals_the_one_the_runner_builds(classifier, tmp_path):
    before = copy.deepcopy(classifier.to_dict())
    model = models.build_model(classifier)
    assert classifier.to_dict() == before
    expected = Runner(
        copy.deepcopy(classifier.model), str(tmp_path), experiment_name='door',
        data_preprocessor=copy.deepcopy(classifier.data_preprocessor),
        default_scope='mmpretrain').model
    given = dict(inputs=[torch.randint(256, (3, 40, 50), dtype=torch.uint8)])
    ours, theirs = (m.data_preprocessor(given)['inputs'] for m in (model, expected))
    assert torch.equal(ours, theirs) and ours.abs().max() < 3
    assert repr(model) == repr(expected)


def test_a_loaded_model_has_the_checkpoints_weights_and_classes(classifier, tmp_path):
    model = models.build_model(classifier)
    stir(model)
    state, meta = model.state_dict(), dict(dataset_meta=dict(classes=list('abcdefg')))
    for content, classes in ((dict(state_dict=state, meta=meta), list('abcdefg')), (state, None)):
        torch.save(content, tmp_path / 'whole.pth')
        loaded = models.load_model(classifier, str(tmp_path / 'whole.pth'))
        assert not loaded.training and loaded.dataset_meta.get('classes') == classes
        assert all(torch.equal(state[name], value) for name, value in loaded.state_dict().items())


def test_models_are_found_in_their_wrappers():
    class Merging(BaseTTAModel):
        def merge_preds(self, data_samples_list):
            raise NotImplementedError

    inner = nn.Linear(2, 2)
    outer = MMDistributedDataParallel.__new__(MMDistributedDataParallel)  # no process group here
    nn.Module.__init__(outer)
    outer.module = tta = Merging.__new__(Merging)
    nn.Module.__init__(tta)
    tta.module = inner
    assert models.unwrapped(outer) is inner and models.unwrapped(inner) is inner


def test_every_fastervit_is_found_and_folded():
    model = nn.ModuleDict(dict(student=FasterViT(TINY), teacher=FasterViT(TINY)))
    assert models.find_backbones(model) == [model['student'], model['teacher']]
    assert models.switch_to_deploy(model) is model and not model.training
    assert all(backbone.deployed for backbone in model.values())
    with pytest.raises(ValueError, match='deploy=True: Linear holds no FasterViT'):
        models.switch_to_deploy(nn.Linear(2, 2))


def test_datasets_are_found_in_their_wrappers():
    cfg = segmentation(joined(dict(type='A', pipeline=[]), dict(type='B', pipeline=[])))
    place = 'test_dataloader.dataset.datasets'
    assert [(name, d['type']) for name, d in models.dataset_configs(cfg, 'test_dataloader')] == [
        (f'{place}.0.dataset', 'A'), (f'{place}.1', 'B')]
    assert list(models.dataset_configs(cfg, 'train_dataloader')) == []


def test_the_pipeline_of_an_image_loads_no_annotations():
    cfg = segmentation(joined(dict(type='A', pipeline=STEPS), dict(type='B', pipeline=STEPS[:1])))
    steps = pipelines.image_pipeline(cfg)
    assert [step['type'] for step in steps] == ['LoadImageFromFile', 'Resize', 'PackSegInputs']
    steps[1]['scale'] = None  # a copy
    assert pipelines.image_pipeline(cfg)[1]['scale'] == (64, 48)
    with pytest.raises(ValueError, match='no test_dataloader with a dataset'):
        pipelines.image_pipeline(Config(dict(model=dict(type='FasterViT'))))


def test_a_file_and_its_pixels_are_the_same_image(tmp_path):
    cfg = segmentation(dict(type='A', pipeline=STEPS))
    pixels = np.random.RandomState(0).randint(0, 256, (30, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels[..., ::-1]).save(tmp_path / 'noise.png')
    for changed in ({}, dict(to_float32=True)):
        cfg.test_dataloader.dataset.pipeline[0].update(changed)
        file, array = (pipelines.image_batch(cfg, given)
                       for given in (tmp_path / 'noise.png', pixels))
        assert file['inputs'][0].shape == (3, 48, 64)
        assert torch.equal(file['inputs'][0], array['inputs'][0])
        assert file['inputs'][0].dtype == array['inputs'][0].dtype
        for batch in (file, array):
            assert batch['data_samples'][0].ori_shape == (30, 40)


def test_an_image_is_normalised_as_the_config_says(classifier, tmp_path):
    pixels = np.full((224, 224, 3), (10, 100, 200), np.uint8)  # BGR
    found = pipelines.model_input(models.build_model(classifier), classifier, pixels)
    settings = classifier.data_preprocessor
    expected = [(value - mean) / std for value, mean, std in zip(
        (200, 100, 10), settings.mean, settings.std)]
    assert found.shape == (1, 3, 224, 224)
    assert found.mean((0, 2, 3)).tolist() == pytest.approx(expected, abs=1e-4)
