"""Pictures show the network's inputs, with ground truth in the right place."""
import runpy
import sys

import mmcv
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, VISUALIZERS, init_default_scope

from fastervit_mm.apis import browse
from fastervit_mm.engine import launch
from tests.conftest import REPO

DET, SEG = 'mmdet/cascade_fvit_0.py', 'mmseg/upernet_fvit_0.py'
FLIP = dict(type='RandomFlip', prob=1.)


@pytest.fixture
def config(tiny_coco, tiny_ade20k):
    """A config of COCO or ADE20K on samples; optionally with another pipeline."""
    def load(name, steps=None):
        cfg = launch.load_config(str(REPO / 'configs' / name))
        root = tiny_coco if name == DET else tiny_ade20k
        for split in ('train', 'val'):
            cfg[f'{split}_dataloader'].dataset.data_root = f'{root}/'
        if steps is not None:
            annotations = dict(type='LoadAnnotations', with_bbox=True, with_mask=True) if (
                name == DET) else dict(type='LoadAnnotations', reduce_zero_label=True)
            packing = 'PackDetInputs' if name == DET else 'PackSegInputs'
            cfg.train_dataloader.dataset.pipeline = [
                dict(type='LoadImageFromFile'), annotations, *steps, dict(type=packing)]
        return cfg
    return load


def fed(item):
    """The network's input, (H, W, 3) RGB."""
    return item['inputs'].permute(1, 2, 0).numpy()[..., ::-1]


def drawn(cfg, index, rescale=False):
    """Picture and sample, of one pass through the pipeline."""
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    visualizer = VISUALIZERS.build(dict(cfg.visualizer, vis_backends=None, name=f'{index}'))
    visualizer.dataset_meta = dataset.metainfo
    item = dataset[index]
    picture = browse.draw(fed(item), item['data_samples'], visualizer, rescale)
    return picture, item, dataset


def check_drawn(changed, instances):
    """Check that only the boxes changed, and that masks are covered."""
    near = np.zeros(changed.shape, bool)
    for left, top, right, bottom in instances.bboxes.tensor.numpy().astype(int):
        # A name begins in its box's corner, and may be wider than the box.
        near[max(top - 3, 0):bottom + 4, max(left - 3, 0):right + 4] = True
        near[max(top - 3, 0):top + 40, max(left - 3, 0):left + 140] = True
    assert 0.05 < near.mean() < 0.95 and not changed[~near].any()
    masks = instances.masks.masks.astype(bool)
    assert len(masks) > 1 and not np.isin(0, masks.sum((1, 2)))
    assert changed[masks.any(0)].mean() > 0.98


@pytest.mark.parametrize('index', [0, 2])
def test_boxes_and_masks_lie_where_their_objects_went(index, config):
    picture, item, _ = drawn(config(DET, [FLIP]), index)
    sample = item['data_samples']
    # Beside the objects it is the file's own picture, turned around, in RGB.
    original = mmcv.imread(sample.img_path, channel_order='rgb')[:, ::-1]
    assert picture.shape == original.shape
    changed = (picture != original).any(-1)
    check_drawn(changed, sample.gt_instances)


def test_label_maps_lie_where_the_image_went(config):
    cfg = config(SEG, [FLIP])
    picture, item, dataset = drawn(cfg, 0)
    labels = item['data_samples'].gt_sem_seg.data[0].numpy()
    original = mmcv.imread(item['data_samples'].img_path, channel_order='rgb')[:, ::-1]
    truth = mmcv.imread(dataset.get_data_info(0)['seg_map_path'], 'unchanged')[:, ::-1]
    assert (labels == np.where(truth == 0, 255, truth.astype(int) - 1)).all()
    palette = np.asarray(dataset.metainfo['palette'])
    alpha = cfg.visualizer.get('alpha', 0.8)
    known = labels != 255
    assert 0 < (~known).mean() < 0.5
    expected = original.astype(float)
    expected[known] = (1 - alpha) * expected[known] + alpha * palette[labels[known]]
    # Names of classes cover some of it.
    right = (np.abs(picture - expected).max(-1) <= 2)
    assert right.mean() > 0.9 and right[~known].mean() > 0.9


@pytest.mark.parametrize('index', [0, 2])
def test_ground_truth_follows_a_test_pipeline_that_loads_it_late(index, config):
    """Ground truth has the original image's size, the input another."""
    cfg = config(DET)
    assert [browse.annotated_late(cfg, f'{split}_dataloader')
            for split in ('train', 'val')] == [False, True]
    load, annotate, *_ = config(DET, []).train_dataloader.dataset.pipeline
    resize, packing = dict(type='Resize', scale=(900, 900)), dict(type='PackDetInputs')
    cfg.train_dataloader.dataset.pipeline = [load, annotate, resize, packing]
    _, early, _ = drawn(cfg, index)
    cfg.train_dataloader.dataset.pipeline = [load, resize, annotate, packing]
    picture, item, _ = drawn(cfg, index, rescale=True)
    plain = fed(item)
    assert picture.shape == plain.shape
    changed = (picture != plain).any(-1)
    check_drawn(changed, early['data_samples'].gt_instances)


def test_a_label_map_follows_a_test_pipeline_that_loads_it_late(config):
    cfg = config(SEG)
    load, annotate, *_ = config(SEG, []).train_dataloader.dataset.pipeline
    resize, packing = dict(type='Resize', scale=(333, 222)), dict(type='PackSegInputs')
    pictures = []
    for steps in ([load, annotate, resize, packing], [load, resize, annotate, packing]):
        cfg.train_dataloader.dataset.pipeline = steps
        pictures.append(drawn(cfg, 0)[0])
    assert pictures[0].shape == pictures[1].shape == (222, 333, 3)
    assert (pictures[0] == pictures[1]).mean() > 0.99


@pytest.mark.parametrize('name, split', [(DET, 'train'), (SEG, 'train'), (DET, 'val')])
def test_the_real_pipelines_are_drawn(name, split, config, tmp_path):
    cfg = config(name)
    np.random.seed(0)
    files = browse.browse(cfg, tmp_path / 'fed', split, number=3)
    assert [f.name[:6] for f in files[:-1]] == ['00000_', '00001_', '00002_']
    assert files[-1].name == 'contact_sheet.png'
    assert sorted((tmp_path / 'fed').iterdir()) == sorted(files)
    shapes = [mmcv.imread(str(f)).shape[:2] for f in files]
    if name == SEG:  # a random crop of 512
        assert all(max(shape) <= 512 for shape in shapes[:-1])
    else:
        # The scale of 1333 x 800; a crop of the training images may make it smaller.
        assert split == 'train' or all(min(s) == 800 or max(s) == 1333 for s in shapes[:-1])
    dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
    stem = files[1].stem.partition('_')[2]
    assert stem in [dataset.get_data_info(i)['img_path'].rpartition('/')[2][:-4]
                    for i in range(len(dataset))]


def joined(*datasets):
    return dict(type='ConcatDataset', datasets=[
        dict(type='RepeatDataset', times=2, dataset=dict(datasets[0], indices=1)), *datasets[1:]])


def test_joined_datasets_are_drawn(config, tmp_path):
    cfg = config(DET)
    dataset = cfg.val_dataloader.dataset
    cfg.val_dataloader.dataset = joined(dataset, dict(dataset, indices=2))
    *pictures, _ = browse.browse(cfg, tmp_path, 'val', number=None)
    one, again, same, other = (path.stem.partition('_')[2] for path in pictures)
    assert one == again == same != other


def test_joined_datasets_with_ground_truth_of_two_kinds_are_refused(config):
    cfg = config(DET)
    cfg.val_dataloader.dataset = joined(cfg.val_dataloader.dataset, cfg.train_dataloader.dataset)
    with pytest.raises(ValueError, match='val_dataloader: one of its datasets loads annotations'):
        browse.browse(cfg, None, 'val')


def test_a_picture_shows_the_names_of_its_objects_by_class(config):
    """The data set's own names and colours: another class would be drawn another colour."""
    picture, item, dataset = drawn(config(DET, []), 0)
    sample = item['data_samples']
    label = int(sample.gt_instances.labels[0])
    sample.gt_instances.labels[0] = (label + 30) % 80
    visualizer = VISUALIZERS.build(dict(type='DetLocalVisualizer', name='other'))
    visualizer.dataset_meta = dataset.metainfo
    other = browse.draw(fed(item), sample, visualizer)
    left, top, right, bottom = sample.gt_instances.bboxes.tensor[0].int().tolist()
    assert (picture != other)[top:bottom, left:right].any()


def browse_dataset(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['browse_dataset.py', *map(str, arguments)])
    runpy.run_path(str(REPO / 'tools/browse_dataset.py'), run_name='__main__')


def test_the_tool_draws_all_into_the_given_folder(monkeypatch, tmp_path, tiny_ade20k, capsys):
    browse_dataset(
        monkeypatch, REPO / 'configs' / SEG, '--out', tmp_path, '--split', 'val', '--number', 0,
        '--cfg-options', f'val_dataloader.dataset.data_root={tiny_ade20k}',
        'val_dataloader.dataset.indices=2')
    assert f'2 figures in {tmp_path}; {tmp_path}/contact_sheet.png' in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize('arguments, message', [
    (('nowhere.py', ), "config='nowhere.py': no such file"),
    ((REPO / 'configs' / DET, ), 'train_dataloader.dataset.data_root'),  # the data are not there
    ((REPO / 'configs' / SEG, '--number', -1), 'number=-1: give at least 1'),
    ((REPO / 'configs' / SEG, '--cfg-options', 'visualizer=None'), 'with a visualizer'),
])
def test_undrawable_data_are_an_error_of_one_line(arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message) as caught:
        browse_dataset(monkeypatch, *arguments, '--out', 'out')
    assert caught.value.code.startswith('browse_dataset: ')
    assert not list(tmp_path.glob('out/*'))


def test_without_an_output_folder_nothing_is_drawn(monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        browse_dataset(monkeypatch, REPO / 'configs' / SEG)
    assert caught.value.code == 2 and 'give --out DIR, --show or both' in capsys.readouterr().err


def test_a_missing_split_is_named(config):
    with pytest.raises(ValueError, match="split='test': the config has no test_dataloader"):
        browse.browse(Config(dict(default_scope='mmdet')), None, 'test')
