"""Training and evaluation from Python."""
import copy
from pathlib import Path

from fastervit_mm.apis import evaluate, train
from fastervit_mm.config_files import read_config
from tests.engine.conftest import SEGMENTOR


def test_a_config_is_trained_and_evaluated_and_stays_as_it_was(
        tiny_ade20k, tmp_path, monkeypatch):
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **_: (text, False))
    (tmp_path / 'tiny.py').write_text(SEGMENTOR.replace('ROOT', str(tiny_ade20k)))
    cfg = read_config(tmp_path / 'tiny.py')
    before = copy.deepcopy(cfg.to_dict())
    short = {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2}
    trained = train(cfg, str(tmp_path / 'run'), short)
    assert Path(trained.checkpoint) == tmp_path / 'run/iter_2.pth'
    metrics = evaluate(cfg, trained.checkpoint, str(tmp_path / 'run'), split='val')
    last = trained.runner.message_hub.log_scalars['val/mIoU'].current()
    assert metrics['mIoU'] == last
    assert cfg.to_dict() == before
