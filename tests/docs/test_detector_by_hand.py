"""docs/own_data.md, a detector by hand, on a sample of COCO: its files and commands.

Smaller in size alone: a few images, a quarter of every side, few proposals, one epoch.
"""
import argparse
import json
from pathlib import Path

import pytest
import torch

import fastervit_mm  # noqa: F401  (timm does not import without it on some machines)
from tests.conftest import REPO
from tests.docs.pages import fences, words
from tests.running import run_tool

FILES = {f.title: f.text for f in fences('python') if f.page.name == 'own_data.md'}
COMMANDS = [c for f in fences('bash') if f.mark and f.mark.startswith('after: data/mine')
            for c in f.commands]
SCALES = '[(120,333),(160,333)]'
SIZES = {
    **{f'model.train_cfg.rcnn.{stage}.sampler.num': 8 for stage in range(3)},
    'model.train_cfg.rpn_proposal.max_per_img': 50,
    'model.test_cfg.rpn.max_per_img': 20,
    'model.test_cfg.rcnn.score_thr': 0.0,
    'model.test_cfg.rcnn.max_per_img': 5,
    'train_cfg.max_epochs': 1,
    'param_scheduler.0.end': 2,
    'default_hooks.logger.interval': 1,
    'default_hooks.checkpoint.save_optimizer': False,
    **{f'{kind}_dataloader.{key}': value for kind in ('train', 'val', 'test') for key, value in (
        ('num_workers', 0), ('persistent_workers', False), ('dataset.indices', 4))},
    **{f'{kind}_dataloader.dataset.pipeline.1.scale': '(333,200)' for kind in ('val', 'test')},
}
# Two ways to resize, of which the second crops in between.
_CHOICE = 'train_dataloader.dataset.pipeline.3.transforms'
TRAIN_SIZES = {f'{_CHOICE}.0.0.scales': SCALES, f'{_CHOICE}.1.0.scales': SCALES,
               f'{_CHOICE}.1.1.crop_size': '(96,150)', f'{_CHOICE}.1.2.scales': SCALES}


def command(start):
    found, = [c for c in COMMANDS if c.startswith(start)]
    return found


def run(line, folder, options=None, **environment):
    options = [f'{key}={value}' for key, value in (options or {}).items()]
    arguments = words(line.replace('$FVIT', str(REPO))) + (
        ['--cfg-options', *options] if options else [])
    tool = Path(arguments[1])
    assert arguments[0] == 'python' and tool.parent == REPO / 'tools'
    done = run_tool(tool.name, *arguments[2:], cwd=folder, environment=environment)
    return done.returncode, done.output


@pytest.fixture(scope='module')
def folder(tmp_path_factory, tiny_coco):
    """The data laid out as the page says, and the page's files, outside the clone."""
    folder = tmp_path_factory.mktemp('finetune')
    data = folder / 'data/mine'
    (data / 'annotations').mkdir(parents=True)
    for split in ('train', 'val'):
        (data / split).symlink_to(tiny_coco / f'{split}2017')
        text = (tiny_coco / f'annotations/instances_{split}2017.json').read_text()
        (data / f'annotations/{split}.json').write_text(text)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope='module')
def published(tmp_path_factory, authors):
    """Torch hub's folder with the file that fastervit://2-224-1k names, its weights random.

    It has the authors' names and what their files carry beside; nothing can be downloaded here.
    """
    theirs = authors('2')
    folder = tmp_path_factory.mktemp('torch_home')
    (folder / 'hub/checkpoints').mkdir(parents=True)
    torch.save(dict(state_dict=theirs.state_dict(), args=argparse.Namespace(lr=5e-3)),
               folder / 'hub/checkpoints/fastervit_2_224_1k.pth.tar')
    return folder, theirs.state_dict()['patch_embed.conv_down.0.weight'].clone()


def test_the_check_finds_what_is_wrong(folder, tmp_path):
    line = command('python $FVIT/tools/prepare_data.py check --ann')
    code, output = run(line, folder)
    assert code == 0 and 'No problem.' in output
    content = json.loads((folder / 'data/mine/annotations/train.json').read_text())
    content['annotations'][0]['bbox'] = [0, 0, 5000, 10]
    content['annotations'][1]['image_id'] = -1
    root = tmp_path / 'data/mine'
    (root / 'annotations').mkdir(parents=True)
    for split in ('train', 'val'):
        (root / f'annotations/{split}.json').write_text(json.dumps(content))
        (root / split).mkdir()
    names = [image['file_name'] for image in content['images']]
    for name in names[1:]:
        (root / 'train' / name).symlink_to(folder / 'data/mine/train' / name)
    source = (folder / 'data/mine/train' / names[1]).read_bytes()
    (root / 'val' / names[1]).write_bytes(source[:len(source) // 2])
    code, output = run(line, tmp_path)
    assert code == 1, output
    for problem in ('box outside its image', 'annotation without an image',
                    'annotated image that is missing', 'unreadable image'):
        assert problem in output, output
    assert names[0] in output and names[1] in output


@pytest.mark.long
def test_the_walk_through_trains_and_evaluates(folder, published):
    home, weight = published
    code, output = run(command('python $FVIT/tools/train.py my_detector.py'), folder,
                       {**SIZES, **TRAIN_SIZES}, TORCH_HOME=str(home))
    assert code == 0, output[-4000:]
    assert '377 of 398 tensors loaded from fastervit://2-224-1k' in output
    assert 'LR is set based on batch size of 16' in output  # --auto-scale-lr, mmengine's words
    work_dir = folder / 'work_dirs/my_detector'
    assert (work_dir / 'curves.png').is_file() and (work_dir / 'my_detector.py').is_file()
    assert list(work_dir.glob('best_coco_bbox_mAP_epoch_1.pth'))
    state = torch.load(work_dir / 'epoch_1.pth', weights_only=True, mmap=True)['state_dict']
    for stage in range(3):
        assert state[f'roi_head.bbox_head.{stage}.fc_cls.weight'].shape[0] == 3 + 1
        assert state[f'roi_head.mask_head.{stage}.conv_logits.weight'].shape[0] == 3
    assert torch.equal(state['backbone.stem.conv1.weight'], weight)  # frozen, and loaded

    line = command('python $FVIT/tools/test.py my_detector.py').replace('epoch_12', 'epoch_1')
    code, output = run(line, folder, SIZES)
    assert code == 0, output[-4000:]
    assert 'coco/bbox_mAP' in output and 'coco/segm_mAP' in output
    assert len(list((work_dir / 'shown').iterdir())) == 4

    # And the last step: a second network from the backbone of the first.
    from fastervit_mm import FasterViT
    from fastervit_mm.engine import launch
    checkpoint = launch.load_config(str(folder / 'my_second_detector.py')).model.backbone.init_cfg
    assert checkpoint.checkpoint == 'work_dirs/my_detector/epoch_12.pth'
    backbone = FasterViT('2', init_cfg=dict(type='Pretrained',
                                            checkpoint=str(work_dir / 'epoch_1.pth')))
    backbone.init_weights()
    assert torch.equal(backbone.stages[3].blocks[0].attn.qkv.weight,
                       state['backbone.stages.3.blocks.0.attn.qkv.weight'])
    for file in work_dir.glob('*.pth'):
        file.unlink()  # half a gigabyte each


def test_a_class_that_the_annotations_lack_stops_it(folder, published):
    config = folder / 'typo.py'
    config.write_text(FILES['my_detector.py'].replace("'cup'", "'mug'"))
    code, output = run('python $FVIT/tools/train.py typo.py', folder, TORCH_HOME=str(published[0]))
    assert code == 1 and "has no category named 'mug'" in output
    assert 'Traceback' not in output and 'Epoch(train)' not in output


@pytest.mark.long
def test_boxes_alone_train(folder):
    """On annotations without masks."""
    data = folder / 'data/mine/annotations'
    kept = {file: file.read_text() for file in data.iterdir()}
    try:
        for file, text in kept.items():
            content = json.loads(text)
            for annotation in content['annotations']:
                del annotation['segmentation']
            file.write_text(json.dumps(content))
        # The smallest variant: the page's other run has trained the config's own.
        code, output = run(command('python $FVIT/tools/train.py my_boxes.py'), folder, {
            **SIZES, 'train_dataloader.dataset.pipeline.2.scales': SCALES,
            'model.backbone.arch': 0, 'model.neck.in_channels': '[64,128,256,512]',
            'model.backbone.init_cfg': None, 'default_hooks.checkpoint.interval': 9})
    finally:
        for file, text in kept.items():
            file.write_text(text)
    assert code == 0, output[-4000:]
    assert 'coco/bbox_mAP' in output and 'segm' not in output.split('Epoch(val)')[-1]
