"""The walks of docs/own_data.md from a folder of data to an exported file, outside of the clone.

The page's own commands, with BCCD and CamVid, on a few of the images or of their stand-ins, for a
few iterations.
"""
import glob
import json
import re
import shlex
from pathlib import Path

import onnxruntime
import pytest

from tests import samples
from tests.docs.pages import fences
from tests.running import run_tool

NUMBERS = dict(train=12, training=12)  # images of a split that are taken; of the others 4
_QUICK = ('train_dataloader.num_workers=0 train_dataloader.persistent_workers=False '
          'val_dataloader.num_workers=0 val_dataloader.persistent_workers=False '
          'default_hooks.logger.interval=1 param_scheduler.0.end=2 ')
SHORT = {
    'bccd': _QUICK + 'train_cfg.max_epochs=1 train_cfg.val_interval=1 '
    'default_hooks.checkpoint.interval=1 model.test_cfg.rcnn.score_thr=0.0 '
    'model.test_cfg.rpn.max_per_img=20',
    'camvid': _QUICK + 'train_cfg.max_iters=3 train_cfg.val_interval=3 '
    'default_hooks.checkpoint.interval=3'}


def some_boxes(source, target):
    (target / 'annotations').mkdir(parents=True)
    for file in sorted((source / 'annotations').iterdir()):
        split = file.stem.removeprefix('instances_')
        content = json.loads(file.read_text())
        content['images'] = content['images'][:NUMBERS.get(split, 4)]
        ids = {image['id'] for image in content['images']}
        content['annotations'] = [a for a in content['annotations'] if a['image_id'] in ids]
        (target / 'annotations' / file.name).write_text(json.dumps(content))
        (target / split).mkdir()
        for image in content['images']:
            (target / split / image['file_name']).symlink_to(source / split / image['file_name'])


def some_label_maps(source, target):
    for split in sorted(path.name for path in (source / 'images').iterdir()):
        for image in sorted((source / 'images' / split).iterdir())[:NUMBERS.get(split, 4)]:
            for part, name in (('images', image.name), ('annotations', f'{image.stem}.png')):
                (target / part / split).mkdir(parents=True, exist_ok=True)
                (target / part / split / name).symlink_to(source / part / split / name)


def typed(command, folder):
    """Run a command of the page, its words expanded as by a shell."""
    words = [word for part in shlex.split(command) for word in (
        sorted(glob.glob(part, root_dir=folder)) or [part])]
    assert words[0] == 'python' and words[1].startswith('$FVIT/tools/')
    done = run_tool(Path(words[1]).name, *words[2:], cwd=folder)
    assert done.returncode == 0, f'{command}\n{done.output[-3000:]}'
    return done.output


@pytest.mark.long
@pytest.mark.parametrize('name, data, some, metric', [
    ('cells', 'bccd', some_boxes, 'coco/bbox_mAP'),
    ('streets', 'camvid', some_label_maps, 'mIoU')])
def test_from_a_folder_to_a_network_by_the_page_alone(name, data, some, metric, tmp_path,
                                                      session_folder):
    some(Path(samples.get(data, session_folder)), tmp_path / data)
    run = tmp_path / 'work_dirs' / name
    steps = [c for f in fences('bash') if f.mark == f'needs: {data}' for c in f.commands]
    tools = [re.search(r'tools/(\w+)\.py', step)[1] for step in steps]
    assert tools == ['new_config', 'browse_dataset', 'train', 'test', 'infer', 'export']
    output = {}
    for tool, step in zip(tools, steps):
        if tool in ('train', 'test'):
            step += f' --cfg-options {SHORT[data]}'
        output[tool] = typed(step, tmp_path)
    assert 'No problem.' in output['new_config']
    for warning in ('is not installed', 'Failed to search registry', 'Traceback'):
        assert not any(warning in text for text in output.values()), warning
    assert len(list((run / 'fed').rglob('*.*'))) >= 12
    saved = next(run.glob(f'{name}.py')).read_text()
    assert "_scope_='fastervit_mm'" not in saved
    assert metric in output['train'] and (run / 'curves.png').is_file()
    # The test split: four images that were not seen.
    assert metric in output['test'] and re.search(r'\(test\) +\[4/4\]', output['test'])
    assert len(list((run / 'shown').rglob('*.*'))) == 4
    assert len(list((run / 'seen/vis').iterdir())) == 4
    file = next(run.glob('*.onnx'))
    assert onnxruntime.InferenceSession(file).get_inputs()[0].name == 'images'
