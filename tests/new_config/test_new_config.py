"""tools/new_config.py: its choices from the data, with their reasons in the config."""
import json

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS
from PIL import Image

import fastervit_mm  # noqa: F401  (for fastervit_mm:: in a config)
from fastervit_mm.engine.checks import check_config
from fastervit_mm.new_config import new_config
from tests.conftest import REPO
from tests.datasets.test_boxes import write_voc, write_yolo
from tests.datasets.test_label_maps import label_map, photo, write
from tests.running import run_tool


def coco(root, size=(640, 480), side=40, count=3, splits=('train', 'val', 'test'), masks=False,
         images=4, name='cell'):
    """Squares of one size, equally many in each image."""
    for split in splits:
        (root / split).mkdir(parents=True)
        content = dict(images=[], annotations=[],
                       categories=[dict(id=1, name=name), dict(id=2, name='nothing')])
        for i in range(images):
            Image.new('RGB', size, (i, 0, 0 if split == 'train' else 9)).save(
                root / split / f'{i}.png')
            content['images'].append(dict(id=i, file_name=f'{i}.png', width=size[0],
                                          height=size[1]))
            for k in range(count):
                x = k % 8 * 10
                content['annotations'].append(dict(
                    id=len(content['annotations']) + 1, image_id=i, category_id=1, iscrowd=0,
                    bbox=[x, 0, side, side], area=side * side, **(dict(segmentation=[
                        [x, 0, x + side, 0, x + side, side]]) if masks else {})))
        (root / f'{split}.json').write_text(json.dumps(content))
    return root


def made(task, data, tmp_path, **kwargs):
    out = tmp_path / 'mine.py'
    report = new_config(task, data, out, **kwargs)
    cfg = Config.fromfile(str(out))
    cfg.work_dir = str(tmp_path / 'run')
    check_config(cfg, training=True)
    check_config(cfg, training=False)
    return cfg, report, out.read_text()


def test_boxes_without_masks_give_a_detector_of_boxes(tmp_path):
    cfg, report, text = made('det', coco(tmp_path / 'data'), tmp_path)
    head = cfg.model.roi_head
    assert head.mask_head is None and head.mask_roi_extractor is None
    assert [h.num_classes for h in head.bbox_head] == [1, 1, 1]
    assert cfg.val_evaluator.metric == cfg.test_evaluator.metric == 'bbox'
    assert not any(step.get('with_mask') for step in cfg.train_pipeline + cfg.test_pipeline)
    assert cfg.classes == ('cell',)  # a category without an object is left out, and said
    assert any('nothing' in said for said in report.decisions)
    assert cfg.test_dataloader.dataset.ann_file == 'test.json'
    assert cfg.val_dataloader.dataset.data_prefix.img == 'val/'
    assert cfg.model.backbone.init_cfg is None and cfg.train_dataloader.batch_size == 4
    assert max(map(len, text.splitlines())) <= 100 and len(text.splitlines()) < 80


def test_masks_are_kept_unless_boxes_are_asked_for(tmp_path):
    data = coco(tmp_path / 'data', masks=True)
    cfg, *_ = made('det', data, tmp_path)
    assert cfg.model.roi_head.mask_head.num_classes == 1
    assert cfg.val_evaluator.metric == ['bbox', 'segm']
    cfg, *_ = made('det', data, tmp_path, boxes_only=True, force=True)
    assert cfg.model.roi_head.mask_head is None


@pytest.mark.parametrize('size, side, longer, anchors', [
    ((640, 480), 30, 352, 4),  # objects of 16 pixels after resizing
    ((640, 480), 320, 256, 8),  # large objects: no smaller than 256
    ((2000, 1000), 20, 640, 2),  # as large as a small network takes
    ((100, 300), 4, 608, 2),  # at most twice its own size
])
def test_sizes_come_from_the_objects(size, side, longer, anchors, tmp_path):
    cfg, report, _ = made('det', coco(tmp_path / 'data', size, side), tmp_path)
    assert tuple(cfg.scale) == (longer, longer)
    assert cfg.train_pipeline[2].scale == cfg.test_pipeline[1].scale == (longer, longer)
    assert cfg.model.rpn_head.anchor_generator.scales == [anchors]
    smallest = side * longer / max(size)
    assert 4 * anchors <= 1.25 * smallest or anchors == 2
    assert f'a longer side of {longer} pixels' in report.decisions[-1]


def test_crowded_images_keep_more_detections(tmp_path):
    data = coco(tmp_path / 'data', count=150)
    for arch in ('small', '0'):
        cfg, *_ = made('det', data, tmp_path, arch=arch, force=True)
        model, base = cfg.model, cfg_of_base(arch)
        assert model.test_cfg.rcnn.max_per_img >= 150 < model.test_cfg.rpn.max_per_img
        # Heads that see more proposals than they learned on give false objects by the hundred.
        for key in ('nms_pre', 'max_per_img'):
            learned = model.train_cfg.rpn_proposal[key]
            assert learned >= model.test_cfg.rpn[key] >= base.test_cfg.rpn[key]
            assert learned >= base.train_cfg.rpn_proposal[key]


def cfg_of_base(arch):
    return Config.fromfile(REPO / f'configs/mmdet/cascade_fvit_{arch}.py').model


def test_few_images_get_more_epochs(tmp_path):
    sizes = dict(size=(64, 48), side=16)
    few, *_ = made('det', coco(tmp_path / 'few', images=40, **sizes), tmp_path)
    many, *_ = made('det', coco(tmp_path / 'many', images=160, **sizes), tmp_path, force=True)
    assert few.max_epochs == 200 and many.max_epochs == 50  # 2000 iterations of 4
    assert few.param_scheduler[1].end == few.train_cfg.max_epochs == 200
    assert few.train_cfg.val_interval == few.default_hooks.checkpoint.interval == 25


def with_rare(root, empty=0):
    """'cell' in every image, 'mite' in one of twenty; besides, images without an object."""
    coco(root, splits=('train', 'val'), images=20 + empty)
    content = json.loads((root / 'train.json').read_text())
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] < 20]
    content['annotations'].append(dict(content['annotations'][0], id=999, category_id=2))
    content['categories'][1]['name'] = 'mite'
    (root / 'train.json').write_text(json.dumps(content))
    return root


@pytest.mark.parametrize('arch, empty', [('small', 3), ('0', 0)])
def test_images_of_rare_classes_come_several_times_if_asked_for(arch, empty, tmp_path):
    data = with_rare(tmp_path / 'data', empty)
    out = tmp_path / 'mine.py'
    plain = new_config('det', data, out, arch=arch)
    before = Config.fromfile(str(out))
    balanced = new_config('det', data, out, arch=arch, balanced=True, force=True)
    cfg = Config.fromfile(str(out))
    inner = cfg.train_dataloader.dataset.dataset
    assert inner.to_dict() == before.train_dataloader.dataset.to_dict()
    from mmengine.registry import DATASETS, init_default_scope
    init_default_scope('mmdet')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    shown = [1 in dataset.get_cat_ids(i) for i in range(len(dataset))]  # label 1 is the mite
    # A share of 1/20, of which sqrt(0.2625 / 0.05) = 2.3 is rounded up.
    assert sum(shown) == 3 and len(shown) == 22
    said = [one for one in balanced.decisions if one not in plain.decisions]
    assert said[0].startswith('mite: rare,') and 'has 22 images instead of 20' in said[0]


def test_without_a_rare_class_nothing_is_repeated(tmp_path):
    cfg, report, _ = made('det', coco(tmp_path / 'data'), tmp_path, balanced=True)
    assert 'no class is rare' in report.decisions[-2]
    assert cfg.train_dataloader.dataset.type == 'CocoDataset'


@pytest.mark.parametrize('write_boxes', [write_voc, write_yolo])
def test_other_forms_are_written_as_coco(write_boxes, tmp_path):
    (tmp_path / 'data').mkdir()
    write_boxes(tmp_path / 'data')
    cfg, _, _ = made('det', tmp_path / 'data', tmp_path)
    dataset = cfg.train_dataloader.dataset
    assert dataset.ann_file == str(tmp_path / 'mine_data/train.json')
    from mmengine.registry import DATASETS, init_default_scope
    init_default_scope('mmdet')
    for split, count in (('train', 2), ('val', 1)):  # images without objects do not train
        dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
        assert len(dataset) == count and dataset.metainfo['classes'] == ('cat', 'dog')
        assert dataset[0]['inputs'].shape[0] == 3


def test_a_published_variant_starts_from_its_weights(tmp_path, monkeypatch):
    out = tmp_path / 'mine.py'
    new_config('det', coco(tmp_path / 'data'), out, arch='0')
    cfg = Config.fromfile(str(out))
    assert cfg.model.backbone.init_cfg.checkpoint == 'fastervit://0-224-1k'
    assert cfg.model.backbone.frozen_stages == 1 and cfg.auto_scale_lr.enable
    assert cfg.model.neck.in_channels == [64, 128, 256, 512]
    paramwise = cfg.optim_wrapper.paramwise_cfg
    assert paramwise.layer_decay_rate == 0.9 and paramwise.norm_decay_mult == 0
    write(tmp_path / 'maps')
    new_config('seg', tmp_path / 'maps', out, arch='4-21k-224', force=True)
    assert Config.fromfile(str(out)).model.backbone.arch == '4-21k-224'
    new_config('seg', tmp_path / 'maps', out, arch='2', force=True)
    assert Config.fromfile(str(out)).model.backbone.arch == '2'


def test_label_maps_give_a_segmentor(tmp_path):
    write(tmp_path / 'data', splits=('train', 'val', 'test'), values=(0, 1, 2, 255))
    cfg, report, text = made('seg', tmp_path / 'data', tmp_path, classes=['sky', 'road', 'car'])
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 3
    dataset = cfg.train_dataloader.dataset
    assert dataset.type == 'BaseSegDataset' and dataset.metainfo.classes == ('sky', 'road', 'car')
    assert not dataset.get('reduce_zero_label') and len(dataset.metainfo.palette) == 3
    assert cfg.test_dataloader.dataset.data_prefix.img_path == 'images/test'
    assert 'class_weight' not in cfg.model.decode_head.loss_decode  # no class is rare
    assert max(map(len, text.splitlines())) <= 100 and len(text.splitlines()) < 90
    from mmengine.registry import DATASETS, init_default_scope
    init_default_scope('mmseg')
    sample = DATASETS.build(cfg.val_dataloader.dataset)[0]['data_samples']
    assert set(np.unique(sample.gt_sem_seg.data)) == {0, 1, 2, 255}


def test_rare_classes_weigh_more(tmp_path):
    for split in ('train', 'val'):
        photo(tmp_path / f'data/images/{split}/a.jpg')
        label_map(tmp_path / f'data/masks/{split}/a.png', (0,) * 23 + (1,))
    cfg, *_ = made('seg', tmp_path / 'data', tmp_path)
    frequent, rare = cfg.model.decode_head.loss_decode.class_weight
    assert 3 < rare / frequent < 6  # the square root of 1 to 23
    assert cfg.model.auxiliary_head.loss_decode.class_weight == [frequent, rare]
    assert cfg.classes == ('class_0', 'class_1')


def test_binary_masks_of_0_and_255_are_rewritten(tmp_path):
    """mmseg ignores 255: nothing but background would be left, with a perfect score."""
    write(tmp_path / 'data', values=(0, 255))
    cfg, report, _ = made('seg', tmp_path / 'data', tmp_path, classes=['ground', 'cell'])
    assert 'mmseg ignores 255' in report.decisions[0]
    maps = cfg.train_dataloader.dataset.data_prefix.seg_map_path
    assert maps == str(tmp_path / 'mine_data/train')
    labels = np.asarray(Image.open(tmp_path / 'mine_data/train/train_0.png'))
    assert set(np.unique(labels)) == {0, 1}
    old = np.asarray(Image.open(tmp_path / 'data/annotations/train/train_0.png'))
    assert ((old == 255) == (labels == 1)).all()


@pytest.mark.parametrize('void, values, rewritten', [(0, (0, 1, 2), False), (2, (0, 1, 2), True)])
def test_a_void_label_is_ignored(void, values, rewritten, tmp_path):
    write(tmp_path / 'data', values=values)
    cfg, *_ = made('seg', tmp_path / 'data', tmp_path, void=void, classes=['one', 'two'])
    from mmengine.registry import DATASETS, init_default_scope
    init_default_scope('mmseg')
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    seen = np.asarray(dataset[0]['data_samples'].gt_sem_seg.data).ravel()
    old = np.asarray(Image.open(tmp_path / 'data/annotations/val/val_0.png')).ravel()
    assert set(np.unique(seen)) == {0, 1, 255}
    assert (tmp_path / 'mine_data').exists() == rewritten
    assert sorted(np.bincount(seen)[[0, 1, 255]]) == sorted(np.bincount(old))
    assert np.bincount(seen)[255] == np.bincount(old)[void]


def tool(*arguments, cwd):
    return run_tool('new_config.py', *arguments, cwd=cwd)


def test_the_tool_prints_its_findings_and_problems(tmp_path):
    data = coco(tmp_path / 'data')
    content = json.loads((data / 'train.json').read_text())
    content['annotations'][0]['bbox'] = [600, 0, 500, 40]
    (data / 'train.json').write_text(json.dumps(content))
    code, output, _ = tool('det', 'mine.py', '--data', 'data', cwd=tmp_path)
    assert code == 1 and (tmp_path / 'mine.py').is_file()
    assert 'box outside its image: 1' in output and 'Correct the problems above first' in output
    assert f'python {REPO}/tools/train.py mine.py' in output
    code, _, error = tool('det', 'mine.py', '--data', 'data', cwd=tmp_path)
    assert code == 1 and error.count('\n') == 1 and '--force replaces it' in error


@pytest.mark.parametrize('task, data, kwargs, message', [
    ('det', 'nowhere', {}, 'no such folder'),
    ('det', 'data', dict(out='mine.txt'), 'a name that ends in .py'),
    ('det', 'data', dict(classes=['cell', 'mug']),
     r"classes=\['mug'\]: no object has this name. The data have cell \(12\)"),
    ('det', 'data', dict(arch='7'), "arch='7': give 'small' or"),
    ('seg', 'data', {}, 'no label maps were found'),
    ('seg', 'maps', dict(classes=['road']),
     '1 name, but the labels are 0, 1, 2: with 0 as the first, 3 classes')])
def test_a_mistake_is_one_line_and_writes_nothing(task, data, kwargs, message, tmp_path):
    coco(tmp_path / 'data', splits=('train',))
    write(tmp_path / 'maps')
    with pytest.raises(ValueError, match=message) as raised:
        new_config(task, tmp_path / data, tmp_path / kwargs.pop('out', 'mine.py'), **kwargs)
    assert '\n' not in str(raised.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['data', 'maps']


@pytest.mark.parametrize('task, data', [
    ('det', lambda root: coco(root)), ('seg', lambda root: write(root) or root)])
def test_early_stopping_is_one_line_to_uncomment(task, data, tmp_path):
    *_, text = made(task, data(tmp_path / 'data'), tmp_path)
    (tmp_path / 'mine.py').write_text(text.replace('# stop=', 'stop='))
    cfg = Config.fromfile(str(tmp_path / 'mine.py'))
    check_config(cfg, training=True)
    assert HOOKS.build(cfg.default_hooks.stop).monitor == cfg.default_hooks.checkpoint.save_best
