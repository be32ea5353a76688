"""The recipes for other networks train and are evaluated, with a narrow backbone, on small images.

Everything else is the config's: heads, losses, pipelines, hooks and optimizer.
"""
import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from benchmarks.recipes import RECIPES
from fastervit_mm import get_config
from tests import samples
from tests.conftest import TINY
from tests.end_to_end.test_tiny_coco import scalars, smaller
from tests.running import run_tool

pytestmark = pytest.mark.long
WIDTHS = [16, 32, 64, 128]
METRICS = dict(IoUMetric='mIoU', CocoMetric='coco/bbox_mAP', CocoPanopticMetric='coco_panoptic/PQ')
RUN = {'randomness': dict(seed=0), 'default_hooks.logger.interval': 1}
EPOCH = {'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1}
ITERATIONS = {'train_cfg.max_iters': 3, 'train_cfg.val_interval': 3,
              'train_cfg.dynamic_intervals': None, 'default_hooks.checkpoint.interval': 3}


def reduced(name):
    """A recipe with a small backbone, sides divided by four, and few steps."""
    cfg = get_config(name)
    cfg.model.backbone.update(arch=TINY, init_cfg=None)
    narrow(cfg.model)
    if 'rtmdet' in name:
        cfg.model.neck.norm_cfg.num_groups = 8
    # Without any detection there is no metric.
    (cfg.model.test_cfg.get('rcnn') or cfg.model.test_cfg).score_thr = 0.
    if 'mask2former' in name:
        head = cfg.model.get('panoptic_head') or cfg.model.decode_head
        head.num_queries = 20
        (cfg.model.train_cfg or head.train_cfg).num_points = 500
    for part in (cfg.model.data_preprocessor, *(cfg.model.data_preprocessor.get(
            'batch_augments') or [])):
        if part.get('size'):
            part.size = tuple(side // 4 for side in part.size)
    for split, count in (('train', 6), ('val', 4), ('test', 4)):
        loader = cfg[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        loader.batch_size = min(loader.batch_size, 2)
        loader.dataset.update(indices=count, pipeline=smaller(loader.dataset.pipeline))
    cfg.merge_from_dict({**RUN, **(EPOCH if 'max_epochs' in cfg.train_cfg else ITERATIONS)})
    return cfg


def narrow(model):
    """Give neck or heads the widths of the small backbone."""
    if 'neck' in model:
        model.neck.in_channels = WIDTHS[-len(model.neck.in_channels):]
        return
    for name in ('panoptic_head', 'decode_head', 'auxiliary_head'):
        if name in model:
            model[name].in_channels = (WIDTHS if isinstance(model[name].in_channels, list)
                                       else WIDTHS[model[name].in_index])


@pytest.fixture(scope='module')
def folder(tmp_path_factory, tiny_coco, tiny_ade20k, session_folder):
    """Data where the recipes expect them."""
    folder = tmp_path_factory.mktemp('recipes')
    for place in ('coco/annotations', 'ade'):
        (folder / 'data' / place).mkdir(parents=True)
    (folder / 'data/ade/ADEChallengeData2016').symlink_to(tiny_ade20k)
    for split, count in (('train2017', 12), ('val2017', 4)):
        (folder / 'data/coco' / split).symlink_to(tiny_coco / split)
        first_images(tiny_coco, folder / 'data/coco', split, count)
        panoptic(folder / 'data/coco/annotations', split)
    cityscapes(folder / 'data/cityscapes', samples.get('camvid', session_folder))
    return folder


def first_images(source, target, split, count):
    """Instances of some images: the panoptic metric refuses images without a prediction."""
    name = f'annotations/instances_{split}.json'
    content = json.loads((source / name).read_text())
    content['images'] = content['images'][:count]
    kept = {image['id'] for image in content['images']}
    content['annotations'] = [one for one in content['annotations'] if one['image_id'] in kept]
    (target / name).write_text(json.dumps(content))


def panoptic(folder, split):
    """Panoptic truth of instances, before one kind of stuff."""
    from mmdet.datasets import CocoPanopticDataset
    from pycocotools.coco import COCO
    coco = COCO(str(folder / f'instances_{split}.json'))
    known = {category['name']: category['id'] for category in coco.dataset['categories']}
    meta = CocoPanopticDataset.METAINFO
    categories = [dict(id=known.get(name, 200 + i), name=name, isthing=int(name in known),
                       supercategory='') for i, name in enumerate(meta['classes'])]
    stuff = categories[-1]['id']
    (folder / f'panoptic_{split}').mkdir()
    annotations = []
    for image in coco.dataset['images']:
        ids = np.ones((image['height'], image['width']), np.uint32)
        of = {1: dict(category_id=stuff, iscrowd=0)}
        for number, one in enumerate(coco.imgToAnns[image['id']], 2):
            ids[coco.annToMask(one) > 0] = number
            of[number] = dict(category_id=one['category_id'], iscrowd=one['iscrowd'])
        segments = []
        for number in np.unique(ids).tolist():
            rows, columns = np.nonzero(ids == number)
            x, y = int(columns.min()), int(rows.min())
            segments.append(dict(of[number], id=number, area=len(rows), bbox=[
                x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y]))
        name = image['file_name'].replace('.jpg', '.png')
        rgb = np.stack([ids, np.zeros_like(ids), np.zeros_like(ids)], -1).astype(np.uint8)
        cv2.imwrite(str(folder / f'panoptic_{split}' / name), rgb[..., ::-1])
        annotations.append(dict(image_id=image['id'], file_name=name, segments_info=segments))
    (folder / f'panoptic_{split}.json').write_text(json.dumps(dict(
        images=coco.dataset['images'], annotations=annotations, categories=categories)))


def cityscapes(folder, camvid):
    """Streets of CamVid in Cityscapes' folders; labels 0 to 10 and 255 are valid there."""
    for split, ours in (('train', 'training'), ('val', 'validation')):
        for part, ending, place in (('images', 'leftImg8bit.png', 'leftImg8bit'),
                                    ('annotations', 'gtFine_labelTrainIds.png', 'gtFine')):
            (folder / place / split / 'town').mkdir(parents=True)
            for path in sorted((camvid / part / ours).iterdir()):
                pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
                cv2.imwrite(str(folder / place / split / f'town/{path.stem}_{ending}'), pixels)


@pytest.mark.parametrize('name', RECIPES)
def test_trains_every_parameter_and_is_evaluated(name, folder):
    if 'panoptic' in name:
        pytest.importorskip('panopticapi', reason='in no registry: see the config')
    work_dir, config = folder / name, folder / f'{name.replace("/", "_")}.py'
    reduced(name).dump(config)
    done = run_tool('train.py', config, '--work-dir', work_dir, cwd=folder)
    assert done.returncode == 0, done.output[-3000:]
    steps = [line for line in scalars(work_dir) if 'loss' in line]
    assert 3 <= len(steps) <= 4 and np.isfinite([line['loss'] for line in steps]).all()
    checkpoint, = [path for path in work_dir.glob('*.pth') if path.stem in ('epoch_1', 'iter_3')]
    optimizer = torch.load(checkpoint, weights_only=True)['optimizer']
    # One without a gradient would have no state, and stop distributed training.
    without = [parameter for group in optimizer['param_groups'] for index, parameter in zip(
        group['params'], group['param_names']) if index not in optimizer['state']]
    assert not without
    evaluators = Config.fromfile(config).val_evaluator
    for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
        assert any(METRICS[evaluator['type']] in line for line in scalars(work_dir))
