"""Training, evaluation and prediction, each in one call."""
import os
from typing import Any, NamedTuple, Optional, Sequence, Union

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner, find_latest_checkpoint

from ..engine import launch
from .inferencer import Inferencer
from .inputs import Input
from .outputs import Results

AnyConfig = Union[str, os.PathLike, Config]


class Trained(NamedTuple):
    """Outcome of a training.

    Attributes:
        checkpoint: Path of the best checkpoint, if the config keeps it (``save_best``, one metric),
            else of the last; None if it keeps none.
        runner: mmengine's runner, with the trained ``model``.
    """
    checkpoint: Optional[str]
    runner: Runner


def train(config: AnyConfig, work_dir: Optional[str] = None, cfg_options: Optional[dict] = None,
          amp: Union[bool, str] = False, auto_scale_lr: bool = False,
          resume: Optional[str] = None, compiled: bool = False, launcher: str = 'none') -> Trained:
    """Train a detector, segmentor or classifier, as ``tools/train.py`` does.

    Args:
        config, work_dir, cfg_options, launcher: As of
            :func:`~fastervit_mm.engine.launch.load_config`.
        amp, auto_scale_lr, resume, compiled: As of :func:`~fastervit_mm.engine.launch.train`, whose
            errors this raises.

    Example:
        >>> from fastervit_mm.apis import evaluate, predict, train
        >>> trained = train('cells.py', cfg_options={'train_dataloader.batch_size': 8})
        >>> metrics = evaluate('cells.py', trained.checkpoint)
        >>> results = predict('cells.py', trained.checkpoint, 'photos', out_dir='seen')
    """
    cfg = launch.load_config(config, launcher, work_dir, cfg_options)
    runner = launch.train(cfg, amp, auto_scale_lr, resume, compiled)
    best = [getattr(hook, 'best_ckpt_path', None) for hook in runner.hooks
            if isinstance(hook, CheckpointHook)]
    return Trained(next(filter(None, best), None) or find_latest_checkpoint(runner.work_dir),
                   runner)


def evaluate(config: AnyConfig, checkpoint: str, work_dir: Optional[str] = None,
             cfg_options: Optional[dict] = None, launcher: str = 'none', **options: Any) -> dict:
    """Evaluate a checkpoint, as ``tools/test.py`` does.

    Args:
        config, work_dir, cfg_options, launcher: As of
            :func:`~fastervit_mm.engine.launch.load_config`.
        checkpoint: Path, URL or ``fastervit://`` name. It must fill the whole model.
        **options: ``split``, ``out``, ``show_dir``, ``tta``, ``amp`` and others of
            :func:`~fastervit_mm.engine.launch.test`, whose errors this raises.

    Returns:
        The metrics.
    """
    cfg = launch.load_config(config, launcher, work_dir, cfg_options)
    return launch.test(cfg, checkpoint, **options)


def predict(config: AnyConfig, checkpoint: str, inputs: Union[Input, Sequence[Input]],
            out_dir: Optional[str] = None, device: Optional[str] = None, deploy: bool = False,
            **options: Any) -> Results:
    """Predict on images and videos; for several calls keep an :class:`Inferencer`.

    Args:
        config, checkpoint, device, deploy: As of :class:`~fastervit_mm.apis.Inferencer`.
        inputs, out_dir: As of its call.
        **options: ``batch_size``, ``score_thr``, ``tile`` and ``show_progress`` of its call.
    """
    return Inferencer(config, checkpoint, device, deploy)(inputs, out_dir, **options)
