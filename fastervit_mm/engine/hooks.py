"""Hooks of mmengine's runner."""
from pathlib import Path
from typing import Dict, Optional, Sequence

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner

from ..models import check_complete, switch_to_deploy
from .curves import headlines, plot_run, read_run


@HOOKS.register_module()
class CurvesHook(Hook):
    """Say after each validation where the run stands, and leave ``work_dir/curves.png`` at its end.

    The line has the metrics that matter, each beside the best so far; the picture the loss and the
    same metrics over all iterations. Both are of the scalars that mmengine's ``LoggerHook`` and
    ``LocalVisBackend`` write, also those from before a run was resumed.
    """
    priority = 'VERY_LOW'  # behind LoggerHook, which writes the last scalars

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: Optional[Dict[str, float]] = None) -> None:
        if not isinstance(runner._train_loop, BaseLoop):
            return  # validation by itself; runner.iter would build the training loop
        curves = read_run(runner.work_dir)
        stands = []
        for name in headlines(metrics or {}):
            now = float(metrics[name])
            best, place = max([(value, -place) for place, value in curves.get(name, [])],
                              default=(now, -runner.iter))
            stands.append(f'{name} {now:.4g} (best {best:.4g}, at iteration {-place})')
        if stands:
            runner.logger.info(f'Validation at iteration {runner.iter}: {", ".join(stands)}')

    @master_only
    def after_train(self, runner: Runner) -> None:
        picture = Path(runner.work_dir) / 'curves.png'
        if plot_run(runner.work_dir, picture):
            runner.logger.info(f'Curves of loss and metrics: {picture}')


@HOOKS.register_module()
class OverlaysHook(Hook):
    """Leave a picture of every tested image: ground truth, where there is one, and prediction.

    Drawn by the config's visualizer, such as mmseg's ``SegLocalVisualizer``, in the palette of its
    dataset.

    Args:
        out_dir: Folder of the pictures, ``<name of the image>.png``.
    """

    def __init__(self, out_dir: str):
        self.out_dir = Path(out_dir)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict = None,
                        outputs: Sequence = ()) -> None:
        import mmcv
        for sample in outputs:
            image = mmcv.imread(sample.img_path, channel_order='rgb')
            name = Path(sample.img_path).stem
            runner.visualizer.add_datasample(name, image, sample, step=batch_idx,
                                             out_file=str(self.out_dir / f'{name}.png'))


@HOOKS.register_module()
class DeployHook(Hook):
    """Fold the model's FasterViT before a test, once its checkpoint is loaded.

    See :meth:`fastervit_mm.FasterViT.switch_to_deploy`.
    """

    def before_test(self, runner: Runner) -> None:
        switch_to_deploy(runner.model)


@HOOKS.register_module()
class CompleteCheckpointHook(Hook):
    """Refuse a checkpoint that does not fill the model that it is loaded into."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        check_complete(runner.model, checkpoint, runner._load_from)
