"""Hooks of mmengine's runner."""
import os
from pathlib import Path
from typing import Dict, Optional, Sequence

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from ..datasets.images import as_picture
from ..models import (
    check_complete,
    find_backbones,
    image_folders,
    rename_published,
    switch_to_deploy,
)
from ..pipelines import read_by
from .curves import headlines, plot_run, read_run
from .precision import keep_boxes_exact
from .results import build_visualizer, draw, result_names, write_label_map


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
        now, epochs = f'iteration {runner.iter}', {}
        if isinstance(runner._train_loop, EpochBasedTrainLoop):
            epochs = {**dict(curves.get('epoch', [])), runner.iter: runner.epoch}
            now = f'epoch {runner.epoch} ({now})'
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


class _NamedResultsHook(Hook):
    """Base of hooks that write a file for each tested image.

    Attributes:
        names: The name of each image's results, by its path
            (:func:`~fastervit_mm.engine.results.result_names`).
    """
    names: Dict[str, str]

    def before_test(self, runner: Runner) -> None:
        dataset = runner.test_dataloader.dataset
        paths = list(dict.fromkeys(
            dataset.get_data_info(i)['img_path'] for i in range(len(dataset))))
        self.names = dict(zip(paths, result_names(
            paths, image_folders(runner.cfg, 'test_dataloader'))))


@HOOKS.register_module()
class OverlaysHook(_NamedResultsHook):
    """Draw every tested image with its ground truth, if there is one, and prediction.

    Args:
        out_dir: Folder of the figures, each at the path of its image below the data's folder, as
            PNG. Default None, no files.
        show: Show each in a window. Default False.
        wait_time: Seconds between two figures of ``show``; 0 waits for a key. Default 2.
        score_thr: Lowest score of a detection that is drawn. Default 0.3.
    """

    def __init__(self, out_dir: Optional[str] = None, show: bool = False, wait_time: float = 2,
                 score_thr: float = 0.3):
        self.out_dir = out_dir
        self.show = show
        self.wait_time = wait_time
        self.score_thr = score_thr
        self.said = False

    def before_test(self, runner: Runner) -> None:
        super().before_test(runner)
        self.visualizer = build_visualizer(runner.cfg, runner.test_dataloader.dataset.metainfo)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict = None,
                        outputs: Sequence = ()) -> None:
        options = dict(show=self.show, wait_time=self.wait_time, draw_gt=True)
        if runner.cfg.get('default_scope') == 'mmdet':
            options['pred_score_thr'] = self.score_thr
        for sample in outputs:
            name = self.names[sample.img_path]
            picture, how = as_picture(read_by(runner.cfg, sample.img_path))
            if how and not self.said:
                runner.logger.info(f'Pictures of images such as {sample.img_path} show {how}')
                self.said = True
            out_file = self.out_dir and os.path.join(self.out_dir, f'{name}.png')
            draw(self.visualizer, picture[..., ::-1], sample, name=name, out_file=out_file,
                 **options)


@HOOKS.register_module()
class LabelMapsHook(_NamedResultsHook):
    """Write the classes of every tested image's pixels, numbered as in the data's label maps.

    mmseg's ``IoUMetric`` writes images of equal names in several folders into one file.

    Args:
        out_dir: Folder of the PNG files, each at the path of its image below the data's folder.
    """

    def __init__(self, out_dir: str):
        self.out_dir = Path(out_dir)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict = None,
                        outputs: Sequence = ()) -> None:
        for sample in outputs:
            write_label_map(self.out_dir / f'{self.names[sample.img_path]}.png',
                            sample.pred_sem_seg.data[0].cpu().numpy(),
                            int(bool(sample.get('reduce_zero_label'))))


@HOOKS.register_module()
class DeployHook(Hook):
    """Fold the model's FasterViT before a test, after its checkpoint is loaded.

    See :meth:`fastervit_mm.FasterViT.switch_to_deploy`.

    Args:
        dtype: Name of the type that the folded backbone is cast to, such as ``'bfloat16'``, for a
            test in mixed precision: autocast would cast every weight at every call. Default None,
            as it is.
    """

    def __init__(self, dtype: Optional[str] = None):
        self.dtype = dtype

    def before_test(self, runner: Runner) -> None:
        switch_to_deploy(runner.model)
        if self.dtype is not None:
            for backbone in find_backbones(runner.model):
                backbone.to(getattr(torch, self.dtype))


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
