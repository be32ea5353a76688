"""Predictions of detectors, segmentors and classifiers on images and videos."""
import os
from functools import cached_property
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.visualization import Visualizer
from rich.progress import MofNCompleteColumn, Progress

from ..config_files import read_config
from ..engine.checks import unwritable
from ..engine.console import quiet_libraries
from ..engine.onednn import use_onednn
from ..engine.results import build_visualizer, draw, drawable, segments_of
from ..export.runtime import LEAST_TILE, tiles
from ..models import label_offset, load_model, switch_to_deploy
from ..pipelines import image_pipeline, model_batch, read_by, viewed
from .categories import Categories, find_categories, metainfo
from .inputs import Failure, Input, Source, collect, images
from .outputs import Prediction, ResultFiles, Results
from .tiling import boxes_of, joined

# Errors from reading and preparing a broken or too small image.
_BAD_IMAGE = (OSError, ValueError, AssertionError, cv2.error)
_TASKS = ('mmdet', 'mmseg', 'mmpretrain')


class Inferencer:
    """Trained detector, segmentor or classifier for images and videos.

    Images go through the config's test pipeline.

    Args:
        config: Path of a config, a name that :func:`fastervit_mm.get_config` knows, or a config.
        checkpoint: Path, URL or ``fastervit://`` name. It must fill the whole model.
        device: Such as ``'cpu'`` or ``'cuda:0'``. Default the GPU if there is one.
        deploy: Fold the backbone (:meth:`fastervit_mm.FasterViT.switch_to_deploy`): the same
            predictions, faster. Default False.

    Raises:
        FileNotFoundError: For a config or checkpoint that does not exist.
        CheckpointError: For a checkpoint that cannot be read safely or does not fill the model.
        ConfigError: For a config with an error in its code.
        ValueError: For a config of another task, or a device that is not available.

    Example:
        >>> from fastervit_mm.apis import Inferencer
        >>> inferencer = Inferencer('mmdet/cascade_fvit', 'epoch_36.pth')
        >>> results = inferencer(['street.jpg', 'photos/'], out_dir='out')
    """

    def __init__(self, config: Union[str, os.PathLike, Config], checkpoint: str,
                 device: Optional[str] = None, deploy: bool = False):
        self.cfg = cfg = config if isinstance(config, Config) else read_config(config)
        scope = cfg.get('default_scope')
        if scope not in _TASKS:
            raise ValueError(f'config: default_scope={scope!r}; give a config of a detector '
                             '(mmdet), a segmentor (mmseg) or a classifier (mmpretrain)')
        _check_device(device)
        self.segments, self.classifies = scope == 'mmseg', scope == 'mmpretrain'
        with quiet_libraries():
            self.model = load_model(cfg, os.fspath(checkpoint), device or get_device())
            own = metainfo(cfg)
        use_onednn(self.model)
        if deploy:
            switch_to_deploy(self.model)
        self.model.dataset_meta = self._described(own)
        self.classes: Sequence[str] = self.model.dataset_meta['classes']
        fusion = getattr(self.model, 'panoptic_fusion_head', None)
        self._things = getattr(fusion, 'num_things_classes', None)
        self._grey = any('grayscale' in step.get('color_type', '') for step in image_pipeline(cfg))
        self._label_offset = label_offset(cfg) if self.segments else 0

    @cached_property
    def visualizer(self) -> Visualizer:
        """Visualizer of overlays; a ValueError for a config without one."""
        return build_visualizer(self.cfg, self.model.dataset_meta)

    @cached_property
    def categories(self) -> Optional[Categories]:
        """Ids of a detector's classes and images; else None."""
        if self.segments or self.classifies:
            return None
        return find_categories(self.cfg, self.classes)

    def __call__(self, inputs: Union[Input, Sequence[Input]], out_dir: Optional[str] = None,
                 batch_size: int = 1, score_thr: float = 0.3, show_progress: bool = False,
                 tile: Optional[int] = None) -> Results:
        """Predict on images and videos, and write results if asked.

        The folder gets ``vis/`` with overlays (a video of a video; images below 480 pixels
        enlarged up to three times, so that labels can be read) and

        - of detectors ``predictions.json``, COCO results, and ``images.json``, the images and
          categories of its ids: ``COCO('images.json').loadRes('predictions.json')`` reads both;
        - of segmentors ``pred/`` with label maps (PNG, numbered as the dataset's own: ADE20K's
          from 1);
        - of panoptic networks ``panoptic.json`` and ``pred/`` with COCO's panoptic PNGs;
        - of classifiers ``predictions.json``, each image's likeliest classes.

        Image ids are those of the config's annotation file for images that it lists. Files of one
        image have its path below the given folder, or below the folder common to all inputs;
        suffixes are kept where files differ only in them.

        Args:
            inputs: Paths of images, videos and folders (with those below them), patterns such as
                ``'photos/**/*.jpg'``, and images as arrays: (H, W, 3) BGR uint8, or as the
                pipeline reads them, such as (H, W) of a grey image; one or several.
            out_dir: Folder for results. Default None, nothing is written.
            batch_size: Images in a forward pass. Only images of equal size share one in a
                segmentor. Default 1.
            score_thr: Lowest score of detections that are drawn and written. Default 0.3.
            show_progress: Show a progress bar. Default False.
            tile: Side in pixels of tiles that a detector looks at beside the whole image, for small
                objects in large images: :func:`~fastervit_mm.export.runtime.tiles`, their boxes
                merged by :func:`~fastervit_mm.export.runtime.merge`. Default None, no tiles.

        Raises:
            ValueError: For an argument out of range, a folder that cannot be written to, results
                that would replace an input, or a config without a visualizer to draw them. Inputs
                that cannot be read are in ``Results.failures``.
        """
        out = _check_call(batch_size, score_thr, out_dir)
        self._check_tile(tile)
        sources, failures = collect(inputs, [out / 'vis', out / 'pred'] if out else ())
        _check_kept(sources, out)
        assert out is None or self.visualizer  # built before the first image
        files = ResultFiles(out, self.classes, self.categories, self._things) if out else None
        predictions: List[Prediction] = []
        with Progress(*Progress.get_default_columns(), MofNCompleteColumn(),
                      disable=not show_progress) as progress:
            task = progress.add_task('Inference', total=sum(
                1 if source.frames is None else source.frames for source in sources))
            try:
                for batch in (self._predict_tiles(sources, batch_size, failures, score_thr, tile)
                              if tile else self._predict(sources, batch_size, failures)):
                    predictions += [self._finish(*one, score_thr, files) for one in batch]
                    progress.advance(task, len(batch))
                progress.update(task, total=len(predictions))
            finally:  # keeps earlier results if an image ends the run
                written = files.close(self.classifies) if files else []
        return Results(predictions, failures, self.classes, written)

    def _predict(self, sources: Iterable[Source], batch_size: int, failures: List[Failure]
                 ) -> Iterator[List[tuple]]:
        """Yield batches of (source, frame, image, data sample)."""
        def run():
            done = self._forward(waiting, failures)
            waiting.clear()
            return done

        waiting: list = []
        for source in sources:
            try:
                for frame, image in images(source):
                    if frame is not None and self._grey:  # as the pipeline would read its file
                        image = mmcv.bgr2gray(image)
                    data = {name: value[0] for name, value in
                            model_batch(self.model, self.cfg, image).items()}
                    # mmseg does not pad images of a test batch to one size.
                    if waiting and self.segments and (
                            data['inputs'].shape != waiting[0][1]['inputs'].shape):
                        yield run()
                    waiting.append(((source, frame, image), data))
                    if len(waiting) == batch_size:
                        yield run()
            except _BAD_IMAGE as error:
                failures.append(Failure(source.given, _one_line(error)))
        if waiting:
            yield run()

    def _predict_tiles(self, sources: Iterable[Source], batch_size: int, failures: List[Failure],
                       score_thr: float, tile: int) -> Iterator[List[tuple]]:
        """Yield as :meth:`_predict`; a batch has tiles of one image."""
        for source in sources:
            try:
                for frame, image in images(source):
                    pixels = image if isinstance(image, np.ndarray) else read_by(self.cfg, image)
                    if frame is not None and self._grey:
                        pixels = mmcv.bgr2gray(pixels)
                    windows = tiles(pixels.shape, tile)
                    samples: List[Any] = []
                    for i in range(0, len(windows), batch_size):
                        samples += self._sampled([
                            np.ascontiguousarray(pixels[y1:y2, x1:x2])
                            for x1, y1, x2, y2 in windows[i:i + batch_size]], score_thr)
                    yield [(source, frame, pixels, joined(samples, windows))]
            except _BAD_IMAGE as error:
                failures.append(Failure(source.given, _one_line(error)))

    @torch.no_grad()
    def _sampled(self, crops: Sequence[np.ndarray], score_thr: float) -> List[Any]:
        batches = [model_batch(self.model, self.cfg, crop) for crop in crops]
        batch = {name: [item[name][0] for item in batches] for name in batches[0]}
        return [self.kept(sample.cpu(), score_thr) for sample in self.model.test_step(batch)]

    @torch.no_grad()
    def _forward(self, batch: list, failures: List[Failure]) -> List[tuple]:
        try:
            samples = self.model.test_step(pseudo_collate([data for _, data in batch]))
            return [(*item, sample) for (item, _), sample in zip(batch, samples)]
        except ValueError as error:  # such as an image too small for the network
            if len(batch) == 1:
                source, frame, _ = batch[0][0]
                where = '' if frame is None else f'frame {frame}: '
                failures.append(Failure(source.given, where + _one_line(error)))
                return []
        return [found for one in batch for found in self._forward([one], failures)]

    def _finish(self, source: Source, frame: Optional[int], image: Any, sample: Any,
                score_thr: float, files: Optional[ResultFiles]) -> Prediction:
        sample = self.kept(sample.cpu(), score_thr)
        found: Dict[str, Any] = {}
        if self.classifies:
            best = sample.pred_score.topk(min(5, len(self.classes)))
            found['top'] = [dict(label=label, name=self.classes[label], score=score)
                            for score, label in zip(best.values.tolist(), best.indices.tolist())]
        if self.segments:
            found['_labels'] = sample.pred_sem_seg.data[0].numpy().astype(
                np.min_scalar_type(len(self.classes)))
        if 'pred_panoptic_seg' in sample:
            found['_labels'], found['segments'] = self._segments(sample)
        if 'pred_instances' in sample:
            found['instances'] = self._instances(sample.pred_instances)
        height, width = (int(n) for n in sample.ori_shape[:2])
        prediction = Prediction(source.given, frame, (height, width), **found,
                                _label_offset=self._label_offset)
        return files.add(source, prediction, *self.drawn(image, sample)) if files else prediction

    def _check_tile(self, tile: Optional[int]) -> None:
        if tile is not None and (self.categories is None or self._things is not None):
            raise ValueError(f'tile={tile}: only for detectors of objects; leave it out')
        if tile is not None and tile < LEAST_TILE:
            raise ValueError(f'tile={tile}: give at least {LEAST_TILE} pixels')

    def kept(self, sample: Any, score_thr: float) -> Any:
        """Remove a data sample's detections of a lower score."""
        if 'pred_instances' in sample:
            sample.pred_instances = sample.pred_instances[
                sample.pred_instances.scores >= score_thr]
        return sample

    def drawn(self, image: Union[str, np.ndarray], sample: Any) -> Tuple[np.ndarray, str]:
        """Draw a data sample: (H, W, 3) RGB, and a remark.

        Args:
            image: Path, or pixels as the pipeline reads them.
            sample: From :meth:`kept`.
        """
        picture, words = viewed(self.cfg, image)
        options = {} if self.segments or self.classifies else dict(pred_score_thr=-1.)
        return draw(self.visualizer, picture[..., ::-1], sample, **options), words

    def _instances(self, found: Any) -> List[Dict]:
        from mmdet.structures.mask import encode_mask_results
        masks = found.get('masks')
        boxes = np.asarray(boxes_of(found).tolist(), dtype=float).reshape(-1, 4)
        boxes[:, 2:] -= boxes[:, :2]
        ids = self.categories.ids
        instances = [dict(category_id=ids[label], bbox=box, score=score) for label, box, score in
                     zip(found.labels.tolist(), boxes.tolist(), found.scores.tolist())]
        for instance, mask in zip(instances, encode_mask_results(masks) if masks is not None
                                  else ()):
            instance['segmentation'] = dict(size=[int(n) for n in mask['size']],
                                            counts=mask['counts'].decode())
        return instances

    def _segments(self, sample: Any) -> Tuple[np.ndarray, List[Dict]]:
        numbers, segments = segments_of(sample, len(self.classes))
        return numbers, [dict(
            id=segment['id'], category_id=self.categories.ids[segment['label']],
            isthing=int(segment['label'] < self._things), iscrowd=0, area=segment['area'],
            bbox=segment['bbox']) for segment in segments]

    def _described(self, own: dict) -> dict:
        """Take the checkpoint's classes and colours, or else the dataset's."""
        known = self.model.dataset_meta
        if not known and own.get('classes'):
            known = own
        if self.classifies and not known.get('classes'):  # such as ImageNet-21K's
            known = dict(known, classes=tuple(map(str, range(self.model.head.num_classes))))
        return drawable({**known, 'palette': known.get('palette') or own.get('palette')})


def _check_call(batch_size: int, score_thr: float, out_dir: Optional[str]) -> Optional[Path]:
    if batch_size < 1:
        raise ValueError(f'batch_size={batch_size}: give at least 1')
    if not 0 <= score_thr <= 1:
        raise ValueError(f'score_thr={score_thr}: give a score from 0 to 1')
    for problem in unwritable('out', out_dir):
        raise ValueError(problem)
    return None if out_dir is None else Path(out_dir)


def _check_kept(sources: Sequence[Source], out: Optional[Path]) -> None:
    """Raise a ValueError if a result would replace an input."""
    given = {os.path.realpath(source.given) for source in sources if source.array is None}
    for source in sources if out else ():
        for path in (out / 'vis' / f'{source.name}.jpg', out / 'vis' / f'{source.name}.mp4',
                     out / 'pred' / f'{source.name}.png'):
            if os.path.realpath(path) in given:
                raise ValueError(f'out={str(out)!r}: the input {path} would be replaced by a '
                                 'result; give another folder')


def _check_device(device: Optional[str]) -> None:
    if device is None:
        return
    try:
        wanted = torch.device(device)
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f'device={device!r}: not available ({_one_line(error)}); give cpu '
                         'or, with a GPU that torch sees, cuda:0') from None


def _one_line(error: BaseException) -> str:
    return f'{(str(error).strip() or type(error).__name__)}'.split('\n')[0]
