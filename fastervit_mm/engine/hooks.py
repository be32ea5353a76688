"""Hooks of mmengine's runner."""
import os
from pathlib import Path
from typing import Dict, Optional, Sequence

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from ..models import (
    check_complete,
    find_backbones,
    image_folders,
    rename_published,
    switch_to_deploy,
)
from ..pipelines import viewed
from .curves import headlines, plot_run, read_run
from .precision import keep_boxes_exact
from .results import build_visualizer, draw, result_names, write_label_map


@HOOKS.register_module()
class CurvesHook(Hook):
    """Log each validation's metrics, and draw ``work_dir/curves.png`` after training.

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
        epochs = dict(curves.get('epoch', ()))
        now = f'iteration {runner.iter}'
        if isinstance(runner._train_loop, EpochBasedTrainLoop):
            epochs[runner.iter] = runner.epoch
            now = f'epoch {runner.epoch} ({now})'
        found = []
        for name in headlines(metrics or {}):
            value = float(metrics[name])
            curve = curves.get(name) or [(runner.iter, value)]
            place, best = max(curve, key=lambda point: point[1])  # the earliest, if equal
            then = f'epoch {epochs[place]}' if place in epochs else f'iteration {place}'
            found.append(f'{name} {value:.4g} (best {best:.4g}, at {then})')
        if found:
            runner.logger.info(f'Validation at {now}: {", ".join(found)}')

    @master_only
    def after_train(self, runner: Runner) -> None:
        picture = Path(runner.work_dir) / 'curves.png'
        if plot_run(runner.work_dir, picture):
            runner.logger.info(f'Curves of loss and metrics: {picture}')


class _NamedResultsHook(Hook):
    """Base of hooks that write a file per tested image.

    Attributes:
        names: :func:`~fastervit_mm.engine.results.result_names` of the images, by path.
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
    """Draw predictions and ground truth on each tested image.

    Args:
        out_dir: Folder of the figures, each at the path of its image below the data's folder, as
            PNG. Default None, no files.
        show: Show each in a window. Default False.
        wait_time: Seconds between two figures of ``show``; 0 waits for a key. Default 2.
        score_thr: Lowest score of a detection that is drawn. Default 0.3.
    """

    def __init__(self, out_dir: Optional[str] = None, show: bool = False, wait_time: float = 2,
                 score_thr: float = 0.3):
        self.out_dir, self.score_thr = out_dir, score_thr
        self.showing = dict(show=show, wait_time=wait_time, draw_gt=True)
        self.said = False

    def before_test(self, runner: Runner) -> None:
        super().before_test(runner)
        self.visualizer = build_visualizer(runner.cfg, runner.test_dataloader.dataset.metainfo)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict = None,
                        outputs: Sequence = ()) -> None:
        options = dict(pred_score_thr=self.score_thr) if (
            runner.cfg.get('default_scope') == 'mmdet') else {}
        for sample in outputs:
            name = self.names[sample.img_path]
            picture, how = viewed(runner.cfg, sample.img_path)
            if how and not self.said:
                runner.logger.info(f'Figures of images such as {sample.img_path} show {how}')
                self.said = True
            out_file = self.out_dir and os.path.join(self.out_dir, f'{name}.png')
            draw(self.visualizer, picture[..., ::-1], sample, name=name, out_file=out_file,
                 **self.showing, **options)


@HOOKS.register_module()
class LabelMapsHook(_NamedResultsHook):
    """Write label maps, numbered as the data's own.

    mmseg's ``IoUMetric`` overwrites results of images with equal names in different folders.

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
    """Fold the FasterViT before a test (:meth:`fastervit_mm.FasterViT.switch_to_deploy`).

    Args:
        dtype: Name of a type to cast the folded backbone to, such as ``'bfloat16'``, for a test in
            mixed precision: autocast would cast every weight at every call. Default None, no cast.
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
    """Rename the authors' tensors (:func:`~fastervit_mm.models.rename_published`)."""
    priority = 'HIGH'  # before hooks that read the names

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint.update(rename_published(checkpoint, runner.model, runner._load_from))


@HOOKS.register_module()
class PublishedFiguresHook(Hook):
    """Log a test's metrics beside the authors' figures.

    Args:
        figures: For each split (``'test'``, or another that ``tools/test.py --split`` names) the
            published values by metric, in the metric's unit.
    """
    priority = 'VERY_LOW'  # after LoggerHook, which writes the metrics

    def __init__(self, figures: Dict[str, Dict[str, float]]):
        self.figures = figures

    @master_only
    def after_test_epoch(self, runner: Runner, metrics: Optional[Dict[str, float]] = None) -> None:
        split = runner.cfg.get('tested_split', 'test')
        for name, published in self.figures.get(split, {}).items():
            if name in (metrics or {}):
                measured = float(metrics[name])
                runner.logger.info(f'{name}: {measured:.2f}, published by the authors: '
                                   f'{published:.2f}, difference {measured - published:+.2f}')


@HOOKS.register_module()
class CompleteCheckpointHook(Hook):
    """Refuse a checkpoint that does not fill the model (CheckpointError)."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        check_complete(runner.model, checkpoint, runner._load_from)


@HOOKS.register_module()
class BoxesHook(Hook):
    """Keep boxes exact in bfloat16 (:func:`~fastervit_mm.engine.precision.keep_boxes_exact`)."""

    def before_run(self, runner: Runner) -> None:
        keep_boxes_exact(runner.model)
