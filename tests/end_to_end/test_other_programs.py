"""mmdet's own programs train and predict with mmcv's operators as installed."""
import subprocess
import sys
from pathlib import Path

import mmdet

from tests.engine.conftest import DETECTOR

CONFIG = f"""{DETECTOR}
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(logger=dict(interval=1))
train_dataloader['dataset']['indices'] = 4
"""
PREDICT = """
import sys
import mmdet  # alone, it needs no operators
import fastervit_mm
from mmdet.apis import DetInferencer, inference_detector, init_detector
config, weights, image = sys.argv[1:]
inferencer = DetInferencer(config, weights, device='cpu', show_progress=False)
boxes = inferencer(image, pred_score_thr=0)['predictions'][0]['bboxes']
found = inference_detector(init_detector(config, weights, device='cpu'), image)
assert len(boxes) == len(found.pred_instances.bboxes) > 0
"""


def test_mmdets_own_training_script_and_inference(tmp_path, tiny_coco):
    config, folder = tmp_path / 'own.py', tmp_path / 'run'
    config.write_text(CONFIG.replace('ROOT', str(tiny_coco)))

    def run(*arguments):
        done = subprocess.run([sys.executable, '-W', 'ignore', *map(str, arguments)], cwd=tmp_path,
                              capture_output=True, text=True)
        assert not done.returncode, done.stderr[-3000:]

    run(Path(mmdet.__file__).parent / '.mim/tools/train.py', config, '--work-dir', folder)
    log = next(folder.glob('*/*.log')).read_text()
    assert log.count("mmcv's operators: ") == 1
    assert 'Epoch(train) [1][2/2]' in log and 'coco/bbox_mAP' in log
    run('-c', PREDICT, config, folder / 'epoch_1.pth',
        next((tiny_coco / 'val2017').iterdir()))
