"""Hooks of mmengine's runner."""
from pathlib import Path
from typing import Dict, Optional, Sequence

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from ..models import check_complete, rename_published, switch_to_deploy
from .curves import headlines, plot_run, read_run
from .precision import keep_boxes_exact


@HOOKS.register_module()
class CurvesHook(Hook):
    """Log the metrics after each validation, and write ``work_dir/curves.png`` after training.

    The line has the headline metrics, each with the best so far, and the epoch where training
    counts epochs. The figure has the loss and the same metrics over all iterations. Both come from
    the scalars that mmengine's ``LoggerHook`` and ``LocalVisBackend`` write, including those from
    before a resume.
    """
    priority = 'VERY_LOW'  # after LoggerHook, which writes the last scalars

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: Optional[Dict[str, float]] = None) -> None:
        if not isinstance(runner._train_loop, BaseLoop):
            return  # validation alone; runner.iter would build the training loop
        curves = read_run(runner.work_dir)
        epochs = dict(curves.get('epoch', []))
        now = f'iteration {runner.iter}'
        if isinstance(runner._train_loop, EpochBasedTrainLoop):
            now, epochs[runner.iter] = f'epoch {runner.epoch} ({now})', runner.epoch
        stands = []
        for name in headlines(metrics or {}):
            value = float(metrics[name])
            best, place = max([(value, -place) for place, value in curves.get(name, [])],
                              default=(value, -runner.iter))
            then = f'epoch {epochs[-place]}' if -place in epochs else f'iteration {-place}'
            stands.append(f'{name} {value:.4g} (best {best:.4g}, at {then})')
        if stands:
            runner.logger.info(f'Validation at {now}: {", ".join(stands)}')

    @master_only
    def after_train(self, runner: Runner) -> None:
        picture = Path(runner.work_dir) / 'curves.png'
        if plot_run(runner.work_dir, picture):
            runner.logger.info(f'Curves of loss and metrics: {picture}')


@HOOKS.register_module()
class OverlaysHook(Hook):
    """Write a figure of every tested image: ground truth, if there is one, and prediction.

    The config's visualizer, such as mmseg's ``SegLocalVisualizer``, draws it in the palette of the
    dataset.

    Args:
        out_dir: Folder of the figures, each ``<name of the image>.png``.
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
    """Fold the model's FasterViT before a test, after its checkpoint is loaded.

    See :meth:`fastervit_mm.FasterViT.switch_to_deploy`.
    """

    def before_test(self, runner: Runner) -> None:
        switch_to_deploy(runner.model)


@HOOKS.register_module()
class PublishedNamesHook(Hook):
    """Let a whole model load the authors' files (:func:`~fastervit_mm.models.rename_published`)."""
    priority = 'HIGH'  # before the names are looked at

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint.update(rename_published(checkpoint, runner.model, runner._load_from))


@HOOKS.register_module()
class PublishedFiguresHook(Hook):
    """Log what a test measured beside the figure that is published, and the difference.

    Args:
        figures: By the split that is tested (``'test'``, or another of the config's, as
            ``tools/test.py --split`` names it), metrics and their published values, in the
            metrics' own unit.
        source: Whose figures they are.
    """
    priority = 'VERY_LOW'  # after LoggerHook, which writes the metrics

    def __init__(self, figures: Dict[str, Dict[str, float]], source: str = 'the authors'):
        self.figures = figures
        self.source = source

    @master_only
    def after_test_epoch(self, runner: Runner, metrics: Optional[Dict[str, float]] = None) -> None:
        split = runner.cfg.get('tested_split', 'test')
        for name, published in self.figures.get(split, {}).items():
            if name in (metrics or {}):
                measured = float(metrics[name])
                runner.logger.info(f'{name}: {measured:.2f}, published by {self.source}: '
                                   f'{published:.2f}, difference {measured - published:+.2f}')


@HOOKS.register_module()
class CompleteCheckpointHook(Hook):
    """Raise CheckpointError for a checkpoint that does not fill the model."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        check_complete(runner.model, checkpoint, runner._load_from)


@HOOKS.register_module()
class RegroupHook(Hook):
    """Let schedules resume from a checkpoint whose optimizer had other parameter groups.

    mmengine restores what a schedule kept for each group;
    :class:`~fastervit_mm.engine.optimizers.MergedOptimWrapperConstructor` has fewer. The groups
    themselves have the same values.
    """

    def before_train(self, runner: Runner) -> None:
        schedules = runner.param_schedulers
        for schedule in schedules if isinstance(schedules, list) else []:
            groups, name = schedule.optimizer.param_groups, schedule.param_name
            if len(schedule.get_last_value()) == len(groups):
                continue
            schedule._last_value = [group[name] for group in groups]
            if hasattr(schedule, 'base_values'):
                schedule.base_values = [group[f'initial_{name}'] for group in groups]
            if hasattr(schedule, 'min_values'):  # ReduceOnPlateau: one value for all in a config
                schedule.min_values = schedule.min_values[-1:] * len(groups)


@HOOKS.register_module()
class BoxesHook(Hook):
    """Keep boxes exact in bfloat16 (:func:`~fastervit_mm.engine.precision.keep_boxes_exact`)."""

    def before_run(self, runner: Runner) -> None:
        keep_boxes_exact(runner.model)
