"""Our runner does all that mmengine's does, and reports what that would train wrongly."""
import json
import random
from itertools import islice

import numpy as np
import pytest
import torch
from mmdet.datasets.samplers import MultiDataSampler  # which mmdet registers elsewhere
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import DataLoader

from fastervit_mm.config_files import ConfigError, read_config
from fastervit_mm.datasets.class_order import label_order, numbered_by_file
from fastervit_mm.engine import launch
from fastervit_mm.engine.checks import _wrong_data
from fastervit_mm.engine.class_checks import reordered_checkpoint, wrong_classes
from fastervit_mm.engine.metric_checks import wrong_metrics
from fastervit_mm.engine.resuming import Draw, _Forward, reproducible
from fastervit_mm.engine.settings import wrong_settings
from fastervit_mm.swapping import swap_backbone
from tests.cases import making
from tests.conftest import TINY


def noisy(info):
    """A pipeline's result: the sample's index, and random numbers like augmentation's."""
    return info['sample_idx'], info.get('key_frame_id'), random.random(), np.random.rand()


class Pictures(BaseDataset):
    """Eleven images of two classes, portrait and landscape."""
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
    'MultiDataSampler': (JOINED, dict(type=MultiDataSampler, dataset_ratio=[1, 2])),
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
    """Batches drawn while other code uses random numbers too."""
    found = []
    for _ in range(number):
        random.random(), np.random.rand(), torch.rand(1)
        found.append(next(iterator))
    return found


@pytest.mark.parametrize('build', SAMPLERS, indirect=True)
def test_every_sampler_trains_and_resumes(build):
    """By iterations, over several epochs if the sampler has epochs, in mmengine's order."""
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


def test_no_sample_is_drawn_before_the_first_batch():
    """Otherwise a resumed loop would start after the samples that the first loop drew."""
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


NAMES = ('red', 'blue', 'green')
BACKWARDS = NAMES[::-1]


def data(folder, train=NAMES, val=NAMES):
    """Annotation files that differ only in the order of their categories."""
    for split, names in (('train', train), ('val', val)):
        making.coco(folder / f'{split}.json', {'0.jpg': making.some_boxes(0, 3)}, names,
                    ids=[NAMES.index(name) + 1 if name in NAMES else 9 for name in names])


def detector(folder, train=NAMES, val=NAMES, kind='CocoDataset', metric=None):
    def dataset(split, names):
        return dict(type=kind, data_root=str(folder), ann_file=f'{split}.json',
                    data_prefix=dict(img=''), metainfo=dict(classes=names))
    return Config(dict(
        default_scope='mmdet', model=dict(bbox_head=dict(num_classes=len(train))),
        train_dataloader=dict(dataset=dataset('train', train)),
        val_dataloader=dict(dataset=dataset('val', val)),
        val_evaluator=dict(type='CocoMetric', ann_file=str(folder / 'val.json'), **metric or {})))


def wrong(cfg, *loaders, training=True):
    loaders = loaders or ('train_dataloader', 'val_dataloader')
    return [*wrong_classes(cfg, loaders, training), *(
        problem for loader in loaders for problem in wrong_metrics(cfg, loader, training))]


def orders_in(problem, *orders):
    """Whether a line contains these lists of names."""
    return all(', '.join(map(repr, order)) in problem for order in orders)


@pytest.mark.parametrize('files, config, where', [
    ((NAMES, NAMES), (NAMES, NAMES), []),
    ((BACKWARDS, BACKWARDS), (BACKWARDS, BACKWARDS), []),
    ((NAMES, NAMES), (BACKWARDS, BACKWARDS), ['train', 'val']),
    ((NAMES, BACKWARDS), (NAMES, NAMES), ['val']),
    ((BACKWARDS, NAMES), (NAMES, NAMES), ['train']),
    ((NAMES, BACKWARDS), (NAMES, BACKWARDS), ['val'])])  # each right by itself
def test_classes_have_one_order_in_files_and_config(tmp_path, files, config, where):
    data(tmp_path, *files)
    found = wrong(detector(tmp_path, *config))
    assert [problem.split('_')[0] for problem in found] == where
    assert all(orders_in(problem, NAMES, BACKWARDS) for problem in found)


def test_joined_datasets_are_compared_too(tmp_path):
    data(tmp_path)
    cfg = detector(tmp_path)
    one = cfg.train_dataloader.dataset
    data(tmp_path / 'more', BACKWARDS)
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=dict(
        type='ConcatDataset', datasets=[one, dict(one, data_root=str(tmp_path / 'more'))]))
    problem, = wrong(cfg)
    assert problem.startswith('train_dataloader.dataset.dataset.datasets.1.ann_file')


def test_some_of_a_files_classes_in_its_order(tmp_path):
    data(tmp_path)
    assert wrong(detector(tmp_path, NAMES[1:], NAMES[1:])) == []
    assert len(wrong(detector(tmp_path, ('green', 'blue'), ('green', 'blue')))) == 2


def test_two_categories_of_one_name(tmp_path):
    data(tmp_path, ('red', 'blue', 'blue'))
    problem, = wrong(detector(tmp_path, ('red', 'blue'), ('red', 'blue')))
    assert problem.startswith('train_dataloader.dataset.ann_file')
    assert "several categories are named 'blue'" in problem


def test_the_evaluators_file_must_have_the_datasets_order(tmp_path):
    data(tmp_path)
    data(tmp_path / 'other', val=BACKWARDS)
    cfg = detector(tmp_path)
    cfg.val_evaluator = [cfg.val_evaluator, dict(
        cfg.val_evaluator, ann_file=str(tmp_path / 'other/val.json'))]
    problem, = wrong(cfg)
    assert problem.startswith('val_evaluator.1.ann_file')
    assert orders_in(problem, NAMES, BACKWARDS)


def test_annotation_ids_that_are_words_in_what_is_evaluated(tmp_path):
    data(tmp_path)
    for split, right in (('train', True), ('val', False)):  # training does not ask for them
        path = tmp_path / f'{split}.json'
        content = json.loads(path.read_text())
        for annotation in content['annotations']:
            annotation['id'] = f'annotation {annotation["id"]}'
        path.write_text(json.dumps(content))
        found = wrong(detector(tmp_path))
        assert found == [] if right else found[0].startswith('val_evaluator.ann_file')


def test_a_checkpoint_of_the_same_classes_in_another_order(tmp_path):
    data(tmp_path)
    cfg = detector(tmp_path)
    cfg.load_from = 'trained.pth'

    def found(classes):
        content = dict(meta=dict(dataset_meta=dict(classes=classes)))
        return list(reordered_checkpoint(cfg, 'val_dataloader', content))
    assert found(NAMES) == found(list(NAMES)) == found(('cat', 'dog')) == found(None) == []
    problem, = found(BACKWARDS)
    assert orders_in(problem, NAMES, BACKWARDS)
    for older in (dict(meta=dict(CLASSES=BACKWARDS)),
                  dict(meta=dict(dataset_meta=dict(classes=np.array(BACKWARDS))))):
        assert len(list(reordered_checkpoint(cfg, 'val_dataloader', older))) == 1


@pytest.mark.parametrize('kind, order', [
    ('CocoDataset', BACKWARDS), ('CityscapesDataset', BACKWARDS),
    ('BaseVideoDataset', BACKWARDS), ('Objects365V2Dataset', BACKWARDS),
    ('Objects365V1Dataset', NAMES)])
def test_labels_are_numbered_as_mmdet_does(tmp_path, kind, order):
    from mmdet import datasets
    data(tmp_path, BACKWARDS)
    kind = getattr(datasets, kind)
    read = kind(data_root=str(tmp_path), ann_file='train.json', data_prefix=dict(img='x/'),
                pipeline=[], metainfo=dict(classes=NAMES), lazy_init=True)
    read.load_data_list()
    labels = {NAMES[category - 1]: label for category, label in read.cat2label.items()}
    assert tuple(sorted(labels, key=labels.get)) == order
    assert label_order(NAMES, tmp_path / 'train.json', numbered_by_file(kind)) == order


def test_datasets_that_number_labels_by_the_config_are_known():
    from mmdet import datasets
    for kind in ('VOCDataset', 'XMLDataset', 'WIDERFaceDataset', 'CrowdHumanDataset'):
        assert not numbered_by_file(getattr(datasets, kind))
    for kind in ('LVISV1Dataset', 'CocoPanopticDataset', 'MOTChallengeDataset',
                 'YouTubeVISDataset'):
        assert numbered_by_file(getattr(datasets, kind))


def test_cocos_own_order_passes(tmp_path):
    from mmdet import datasets
    for kind in ('CocoDataset', 'CocoPanopticDataset', 'CityscapesDataset', 'iSAIDDataset'):
        names = getattr(datasets, kind).METAINFO['classes']
        data(tmp_path, names, names)
        cfg = detector(tmp_path, kind=kind)
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.dataset.pop('metainfo')
        cfg.model.bbox_head.num_classes = len(names)
        assert wrong(cfg) == []


def test_things_of_a_panoptic_dataset(tmp_path):
    cfg = detector(tmp_path, kind='CocoPanopticDataset')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.pop('metainfo')
    for number, problems in ((80, 0), (133, 0), (79, 1), (53, 1)):
        cfg.model.bbox_head.num_classes = number
        assert len(wrong(cfg)) == problems


@pytest.mark.parametrize('classes, problems', [
    (('ground', 'thing'), 0), (('thing',), 1), (NAMES, 1)])
@pytest.mark.parametrize('number', [1, 2])
def test_a_binary_segmentor_has_data_of_two_classes(classes, problems, number):
    cfg = Config(dict(
        default_scope='mmseg', model=dict(decode_head=dict(num_classes=number, out_channels=1)),
        train_dataloader=dict(dataset=dict(type='BaseSegDataset', metainfo=dict(classes=classes)))))
    assert len(wrong(cfg, 'train_dataloader')) == problems


def test_one_class_without_its_comma(tmp_path):
    data(tmp_path)
    found = wrong(detector(tmp_path, ('red'), ('red')))
    assert len(found) == 2 and all("('red', )" in problem for problem in found)
    names = making.text(tmp_path / 'names.txt', 'red\nblue\ngreen\n')
    cfg = detector(tmp_path, str(names), str(names))
    cfg.model.bbox_head.num_classes = 3
    assert wrong(cfg) == []


@pytest.mark.parametrize('loss, out, problems', [
    (dict(type='CrossEntropyLoss'), 1, 1), (dict(type='CrossEntropyLoss', use_sigmoid=True), 1, 0),
    (dict(type='CrossEntropyLoss'), 2, 0)])
def test_a_softmax_has_more_than_one_class(loss, out, problems):
    cfg = Config(dict(
        default_scope='mmseg', model=dict(decode_head=dict(num_classes=out, loss_decode=loss)),
        train_dataloader=dict(dataset=dict(
            type='BaseSegDataset', metainfo=dict(classes=NAMES[:out])))))
    assert len(wrong(cfg, 'train_dataloader')) == problems


@pytest.mark.parametrize('crowds, problems', [([1, 1, 1], 1), ([1, 0, 1], 0), ([None, 1, 1], 0)])
def test_a_file_of_crowds_alone_is_a_problem(tmp_path, crowds, problems):
    data(tmp_path)
    content = json.loads((tmp_path / 'train.json').read_text())
    for annotation, crowd in zip(content['annotations'], crowds):
        annotation['iscrowd'] = crowd
        if crowd is None:
            del annotation['iscrowd']
    making.text(tmp_path / 'train.json', json.dumps(content))
    cfg = detector(tmp_path)
    assert len(list(_wrong_data(cfg, 'train_dataloader'))) == problems
    assert list(_wrong_data(cfg, 'val_dataloader')) == []


@pytest.mark.parametrize('lacking, masks, problems', [
    ({}, True, 1), ({}, False, 0), (dict(segmentation=[]), True, 1), (dict(area=0), True, 0)])
def test_masks_that_training_loads_must_exist(tmp_path, lacking, masks, problems):
    data(tmp_path)
    content = json.loads((tmp_path / 'train.json').read_text())
    for annotation in content['annotations']:
        annotation['segmentation'] = [[0, 0, 9, 0, 9, 9]]
    del annotation['segmentation']
    annotation.update(lacking)
    making.text(tmp_path / 'train.json', json.dumps(content))
    cfg = detector(tmp_path)
    cfg.train_dataloader.dataset.pipeline = [dict(type='LoadAnnotations', with_mask=masks)]
    assert len(list(_wrong_data(cfg, 'train_dataloader'))) == problems


def test_classes_under_the_key_of_release_candidates(tmp_path):
    data(tmp_path)
    cfg = detector(tmp_path)
    cfg.val_dataloader.dataset.metainfo = dict(CLASSES=NAMES)
    problem, = wrong(cfg)
    assert problem.startswith('val_dataloader.dataset.metainfo.CLASSES')


def test_the_evaluators_file_must_have_the_datasets_images(tmp_path):
    data(tmp_path)
    for name, images in (('same', ['0.jpg']), ('more', ['0.jpg', '1.jpg']), ('other', ['1.jpg'])):
        making.coco(tmp_path / f'{name}.json', {f'x/{image}': [] for image in images}, NAMES)
        cfg = detector(tmp_path)
        cfg.val_evaluator.ann_file = str(tmp_path / f'{name}.json')
        found = wrong(cfg)
        assert [problem[:22] for problem in found] == ['val_evaluator.ann_file'] * (name != 'same')


@pytest.mark.parametrize('roi_head, problems', [
    (dict(bbox_head={}), 1), (dict(mask_head=None), 1), (dict(mask_head=dict(num_classes=3)), 0),
    (None, 1)])
def test_masks_are_scored_where_the_model_and_the_file_have_them(tmp_path, roi_head, problems):
    data(tmp_path)
    cfg = detector(tmp_path, metric=dict(metric=['bbox', 'segm']))
    cfg.model.roi_head = roi_head
    assert len(wrong(cfg)) == 1
    content = json.loads((tmp_path / 'val.json').read_text())
    for annotation in content['annotations']:
        annotation['segmentation'] = [[0, 0, 9, 0, 9, 9]]
    making.text(tmp_path / 'val.json', json.dumps(content))
    assert len(wrong(cfg)) == problems
    if roi_head is None:  # as boxes alone teach masks, or RTMDet-Ins does
        cfg.train_dataloader.dataset.pipeline = [dict(type='LoadAnnotations', with_mask=True)]
        assert wrong(cfg) == []


@pytest.mark.parametrize('keys, problems', [(('img_id', ), 1), (('img_id', 'instances'), 0)])
def test_a_metric_without_a_file_gets_the_annotations_with_the_images(tmp_path, keys, problems):
    data(tmp_path)
    cfg = detector(tmp_path)
    cfg.val_evaluator.ann_file = None
    cfg.val_dataloader.dataset.pipeline = [dict(type='PackDetInputs', meta_keys=keys)]
    assert len(wrong(cfg)) == problems


EVALUATORS = dict(
    coco=dict(type='mmdet.CocoMetric'), items=dict(type='mmdet.CocoMetric', metric_items=['mAP']),
    classes=dict(type='mmdet.CocoMetric', classwise=True), voc=dict(type='mmdet.VOCMetric'),
    iou=dict(type='mmseg.IoUMetric'), accuracy=dict(type='mmpretrain.Accuracy', topk=(1, 5)),
    two=[dict(type='mmseg.IoUMetric'), dict(type='mmseg.IoUMetric', iou_metrics=['mFscore'],
                                            prefix='f')])


@pytest.mark.parametrize('evaluator, right, wrong_names', [
    ('coco', ['auto', 'coco/bbox_mAP'], ['bbox_mAP', 'coco/segm_mAP', 'coco/mAP', 'loss']),
    ('items', ['coco/bbox_mAP'], ['coco/bbox_mAP_50']),
    ('classes', ['coco/red_precision'], ['red_precision']),
    ('voc', ['pascal_voc/mAP', 'pascal_voc/AP50'], ['mAP']),
    ('iou', ['mIoU', 'aAcc'], ['mDice', 'IoU']),
    ('accuracy', ['accuracy/top5'], ['accuracy/top3', 'top1']),
    ('two', ['mIoU', 'f/mFscore'], ['mFscore', 'f/mIoU'])])
def test_a_monitored_metric_that_is_not_computed_is_a_problem(evaluator, right, wrong_names):
    for number, name in enumerate([*right, *wrong_names]):
        cfg = Config(dict(
            model={}, val_evaluator=EVALUATORS[evaluator], custom_hooks=[
                dict(type='EarlyStoppingHook', monitor=name)],
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best=[name])),
            param_scheduler=dict(type='ReduceOnPlateauLR', monitor=name)))
        found = [problem.partition('=')[0] for problem in wrong(cfg, 'val_dataloader')]
        assert found == (number >= len(right)) * [
            'default_hooks.checkpoint.save_best', 'custom_hooks.0.monitor',
            'param_scheduler.monitor']
        cfg.val_cfg = dict(type='mmdet.TeacherStudentValLoop')  # it gives teacher/… and student/…
        assert wrong(cfg, 'val_dataloader') == []


@pytest.mark.parametrize('setting', [dict(persistent_workers=True), dict(prefetch_factor=2)])
@pytest.mark.parametrize('workers', [0, 2])
def test_settings_that_need_workers_are_a_problem_without_them(setting, workers):
    cfg = Config(dict(model={}, val_dataloader=dict(num_workers=workers, **setting)))
    found = list(wrong_settings(cfg, ['val_dataloader'], False))
    assert len(found) == (workers == 0)
    try:
        DataLoader([1], num_workers=workers, **setting)
    except ValueError:
        assert found


PURE_PYTHON = """
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from mmseg.datasets import BaseSegDataset
from mmseg.evaluation import IoUMetric
from mmseg.models import EncoderDecoder, FCNHead, SegDataPreProcessor
from mmcv.transforms import LoadImageFromFile
from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs
from mmseg.visualization import SegLocalVisualizer
from mmengine.optim import OptimWrapper
from torch.optim import SGD

from fastervit_mm import FasterViT
from fastervit_mm.engine import PublishedNamesHook

model = dict(
    type=EncoderDecoder, backbone=dict(type=FasterViT, arch=TINY),
    data_preprocessor=dict(type=SegDataPreProcessor, size=(64, 64), mean=[0.] * 3, std=[255.] * 3),
    decode_head=dict(type=FCNHead, in_channels=64, in_index=2, channels=16, num_classes=2,
                     out_channels=1, threshold=0.5, num_convs=1,
                     loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True)),
    test_cfg=dict(mode='whole'))
loader = dict(batch_size=2, num_workers=0, sampler=dict(type=DefaultSampler), dataset=dict(
    type=BaseSegDataset, data_root=ROOT, img_suffix='.png', metainfo=dict(classes=('no', 'yes')),
    data_prefix=dict(img_path='images', seg_map_path='masks'), pipeline=[
        dict(type=LoadImageFromFile), dict(type=LoadAnnotations), dict(type=PackSegInputs)]))
train_dataloader = loader
val_dataloader = loader
test_dataloader = loader
val_evaluator = [dict(type=IoUMetric), dict(type=IoUMetric, iou_metrics=['mFscore'], prefix='f')]
test_evaluator = val_evaluator
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.01))
param_scheduler = None
custom_hooks = [dict(type=PublishedNamesHook)]
default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=1))
visualizer = dict(type=SegLocalVisualizer)
default_scope = None
"""


@pytest.fixture(scope='module')
def pure_python(tmp_path_factory):
    """A pure-Python config of a binary segmentor, with two metrics."""
    folder = tmp_path_factory.mktemp('pure_python')
    for name in ('a', 'b'):
        making.picture(folder / f'data/images/{name}.png', [(0, 10, 10, 30, 30)], size=(64, 64))
        labels = np.zeros((64, 64), np.uint8)
        labels[10:40, 10:40] = 1
        making.label_map(folder / f'data/masks/{name}.png', labels)
    return making.text(folder / 'config.py', PURE_PYTHON.replace('TINY', repr(TINY)).replace(
        'ROOT', repr(str(folder / 'data'))))


def test_a_config_of_classes_is_one_of_its_library(pure_python):
    cfg = read_config(pure_python)
    assert cfg.default_scope == 'mmseg'
    launch.add_for_training(cfg)
    assert cfg.train_cfg.type == 'ResumableEpochLoop'
    assert cfg.default_hooks.checkpoint.type == 'WholeCheckpointHook'
    hooks = [getattr(hook.type, '__name__', hook.type) for hook in cfg.custom_hooks]
    assert len(hooks) == len(set(hooks)) > 1
    saved = pure_python.with_name('saved.py')  # as mmengine's runner saves it
    cfg.dump(saved)
    again = read_config(saved)
    launch.add_for_training(again)
    assert again.train_cfg.type == 'ResumableEpochLoop' and again.default_scope == 'mmseg'
    assert len(again.custom_hooks) == len(hooks)


def test_a_config_of_classes_swaps_its_backbone_as_text(pure_python, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        swap_backbone(pure_python)
    exec(str(caught.value).partition('python -c "')[2].rstrip('"'), {})
    assert "arch='0'" in swap_backbone('config_text.py', '0', tmp_path / 'swapped.py').text


def test_a_config_of_classes_trains_resumes_and_is_tested(pure_python, tmp_path):
    def config():
        return launch.load_config(str(pure_python), work_dir=str(tmp_path / 'work'))
    launch.train(config())
    cfg = config()
    cfg.train_cfg.max_epochs = 2
    runner = launch.train(cfg, resume='auto')
    assert (runner.epoch, runner.iter) == (2, 2)
    metrics = launch.test(config(), str(tmp_path / 'work/epoch_2.pth'),
                          out=str(tmp_path / 'out'))
    assert {'mIoU', 'f/mFscore'} <= set(metrics)
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {'a.png', 'b.png'}


def test_a_dataset_without_images_is_an_error_of_one_line(pure_python, tmp_path):
    cfg = launch.load_config(str(pure_python), work_dir=str(tmp_path / 'work'))
    cfg.train_dataloader.dataset.img_suffix = '.jpg'
    with pytest.raises(ConfigError, match='data_root=.* no usable image'):
        launch.train(cfg)


def test_the_code_in_the_error_for_mmengines_hub_runs():
    from fastervit_mm.utils import register_all_modules
    with pytest.raises(ConfigError) as caught:
        register_all_modules()
    typed = {}
    exec(str(caught.value).partition('Instead: ')[2], typed)
    assert type(typed['model']).__name__ == 'EncoderDecoder'
