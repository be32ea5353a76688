"""What mmengine's own Runner trains or tests, ours does; and what it would train wrongly is said."""
import json
import random
from itertools import islice

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import DataLoader

from fastervit_mm.config_files import ConfigError, read_config
from fastervit_mm.datasets.class_order import label_order, numbered_by_file
from fastervit_mm.engine import launch
from fastervit_mm.engine.checks import check_config
from fastervit_mm.engine.class_checks import learned_otherwise, wrong_classes
from fastervit_mm.engine.resuming import Draw, _Forward, reproducible
from fastervit_mm.models import build_model
from tests.cases import making
from tests.conftest import TINY


def noisy(info):
    """What a pipeline gives: the sample's place, and random numbers as augmentation draws them."""
    return info['sample_idx'], info.get('key_frame_id'), random.random(), np.random.rand()


class Pictures(BaseDataset):
    """Eleven pictures, upright and lying, of two classes."""
    METAINFO = dict(classes=('red', 'blue'))

    def load_data_list(self):
        return [dict(width=3 + index % 3, height=4, label=index % 2) for index in range(11)]

    def get_cat_ids(self, index):
        return [self.get_data_info(index)['label']]


@pytest.fixture(scope='module')
def videos():
    from mmdet.datasets import BaseVideoDataset

    class Videos(BaseVideoDataset):
        def load_data_list(self):
            return [dict(video_id=video, images=[dict(width=4 + video % 2, height=4)] * frames)
                    for video, frames in enumerate((3, 4, 2, 2))]

        def filter_data(self):
            return self.data_list
    return dict(type=Videos, pipeline=[noisy])


PICTURES = dict(type=Pictures, pipeline=[noisy])
JOINED = dict(type='mmdet.ConcatDataset', datasets=[PICTURES, PICTURES])
DEFAULT = dict(type='DefaultSampler', shuffle=True)
SAMPLERS = {
    'DefaultSampler': (PICTURES, DEFAULT),
    'InfiniteSampler': (PICTURES, dict(type='InfiniteSampler', shuffle=True)),
    'ClassAwareSampler': (PICTURES, dict(type='mmdet.ClassAwareSampler')),
    'MultiSourceSampler': (JOINED, dict(
        type='mmdet.MultiSourceSampler', batch_size=3, source_ratio=[1, 2])),
    'GroupMultiSourceSampler': (JOINED, dict(
        type='mmdet.GroupMultiSourceSampler', batch_size=3, source_ratio=[1, 2])),
    'CustomSampleSizeSampler': (JOINED, dict(
        type='mmdet.CustomSampleSizeSampler', dataset_size=[-1, 4])),
    'MultiDataSampler': (JOINED, dict(type='mmdet.MultiDataSampler', dataset_ratio=[1, 2])),
    'TrackImgSampler': ('videos', dict(type='mmdet.TrackImgSampler')),
    'RepeatAugSampler': (PICTURES, dict(type='mmpretrain.RepeatAugSampler')),
    'SequentialSampler': (PICTURES, dict(type='mmpretrain.SequentialSampler')),
    'AspectRatioBatchSampler': (PICTURES, DEFAULT, dict(
        type='mmdet.AspectRatioBatchSampler', drop_last=True)),
    'TrackAspectRatioBatchSampler': ('videos', dict(type='mmdet.TrackImgSampler'), dict(
        type='mmdet.TrackAspectRatioBatchSampler')),
    'MultiDataAspectRatioBatchSampler': (JOINED, dict(
        type='mmdet.CustomSampleSizeSampler', dataset_size=[-1, 4]), dict(
        type='mmdet.MultiDataAspectRatioBatchSampler', num_datasets=2, batch_size=[2, 3])),
}
ENDLESS = ('InfiniteSampler', 'MultiSourceSampler', 'GroupMultiSourceSampler')


@pytest.fixture
def build(request, videos, monkeypatch):
    """A function that builds the data loader of a sampler as mmengine does."""
    monkeypatch.setattr('time.sleep', lambda seconds: None)  # mmengine's, between epochs
    dataset, sampler, *batches = SAMPLERS[request.param]

    def made():
        settings = dict(
            dataset=videos if dataset == 'videos' else dataset, sampler=dict(sampler),
            batch_size=3, num_workers=0, collate_fn=list)
        if batches:
            settings['batch_sampler'] = dict(batches[0])
            settings['batch_size'] = batches[0].get('batch_size', 3)
        return Runner.build_dataloader(Config(settings)._cfg_dict, seed=5)
    made.endless = request.param in ENDLESS
    made.draws_global_numbers = request.param == 'GroupMultiSourceSampler'
    made.draws_for_its_length = request.param == 'MultiDataAspectRatioBatchSampler'
    return made


def taken(iterator, number):
    """Batches, while something else draws random numbers too."""
    found = []
    for _ in range(number):
        random.random(), np.random.rand(), torch.rand(1)
        found.append(next(iterator))
    return found


@pytest.mark.parametrize('build', SAMPLERS, indirect=True)
def test_every_sampler_trains_and_resumes(build):
    """By iterations, over several epochs where the sampler has some; and in mmengine's order."""
    whole = taken(_InfiniteDataloaderIterator(reproducible(build(), seed=5)), 14)
    for skip in (2, 9):
        resumed = _Forward(reproducible(build(), seed=5), skip)
        assert [next(resumed) for _ in range(skip)] == [None] * skip
        assert taken(resumed, 14 - skip) == whole[skip:]
    theirs = build()
    if build.draws_for_its_length:
        len(theirs)
    if not build.draws_global_numbers:
        theirs = taken(_InfiniteDataloaderIterator(theirs), 14)
        places = [[[sample[:2] for sample in batch] for batch in run] for run in (whole, theirs)]
        assert places[0] == places[1]


@pytest.mark.parametrize('build', [s for s in SAMPLERS if s not in ENDLESS], indirect=True)
def test_every_sampler_resumes_within_an_epoch(build):
    loader, epochs = reproducible(build(), seed=5), []
    for epoch in range(3):
        loader.batch_sampler.sampler.set_epoch(epoch)  # as DistSamplerSeedHook does
        epochs.append(list(loader))
    assert len({str(epoch) for epoch in epochs}) == 3
    resumed = reproducible(build(), seed=5)
    resumed.batch_sampler.leave_out(1, epoch=2)
    assert list(resumed) == epochs[2][1:]


def test_nothing_is_drawn_before_the_first_batch_is_asked_for():
    """Else a loop that resumes would begin behind what the loop that was built had taken."""
    loader = reproducible(Runner.build_dataloader(dict(
        dataset=PICTURES, sampler=dict(type='InfiniteSampler'), batch_size=3, num_workers=2,
        collate_fn=list), seed=5), seed=5)
    first = iter(loader)
    assert list(islice(loader, 2)) == list(islice(reproducible(Runner.build_dataloader(dict(
        dataset=PICTURES, sampler=dict(type='InfiniteSampler'), batch_size=3, num_workers=0,
        collate_fn=list), seed=5), seed=5), 2))
    assert first is not None


def test_samples_that_are_batches_are_left_to_mmengine():
    loader = DataLoader([1, 2], batch_size=None)
    assert reproducible(loader, seed=5) is loader


def test_a_dataset_that_loads_batches_gets_its_own_indices():
    class Batches(torch.utils.data.TensorDataset):
        def __getitems__(self, indices):
            assert not any(isinstance(index, Draw) for index in indices)
            return [self[index] for index in indices]
    loader = reproducible(DataLoader(Batches(torch.arange(4)), batch_size=2), seed=5)
    assert [batch[0].tolist() for batch in loader] == [[0, 1], [2, 3]]
