"""Predictions of detectors, segmentors and classifiers on images and videos, and their files."""
import copy
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.registry import VISUALIZERS, init_default_scope
from PIL import Image
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..config_files import read_config
from ..engine.checks import unwritable
from ..engine.console import quiet_libraries
from ..engine.enlarging import readable
from ..engine.onednn import use_onednn
from ..models import (
    check_complete,
    dataset_config,
    image_batch,
    load_model,
    rename_published,
    switch_to_deploy,
)
from ..weights.reading import strict_loaders
from . import categories
from .inputs import Failure, Input, Source, collect, images
from .outputs import CocoFiles, Videos, write_classes, write_label_map

# What reading and preparing a broken or too small image raises.
_BAD_IMAGE = (OSError, ValueError, AssertionError, cv2.error)


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image or one frame of a video.

    Attributes:
        source: Path of the image or video; a name for an array.
        frame: Number of the frame, from 0; None for an image.
        size: (height, width) in pixels.
        instances: A detector's objects, as entries of a COCO results file: ``category_id``,
            ``bbox`` as (x, y, width, height) in pixels, ``score`` and, for a detector with masks,
            ``segmentation`` as compressed RLE. None for another network.
        top: A classifier's five likeliest classes, the likeliest first: ``label``, ``name`` and
            ``score``. None for another network.
        files: Paths of the files written: ``'overlay'`` and, for a segmentor, ``'label_map'``.
    """
    source: str
    frame: Optional[int]
    size: Tuple[int, int]
    instances: Optional[List[Dict]] = None
    top: Optional[List[Dict]] = None
    files: Dict[str, str] = field(default_factory=dict)
    _labels: Optional[np.ndarray] = None
    _label_offset: int = 0

    @property
    def label_map(self) -> Optional[np.ndarray]:
        """A segmentor's class of each pixel, (H, W) integers, numbered as ``Results.classes``.

        Read back from its file if it was written to one.
        """
        if self._labels is None and 'label_map' in self.files:
            return np.asarray(Image.open(self.files['label_map'])) - self._label_offset
        return self._labels


class Results(NamedTuple):
    """What an :class:`Inferencer` returns.

    Attributes:
        predictions: One for each image or frame, in the order of the inputs.
        failures: Inputs without a prediction, and why.
        classes: Names of the classes.
        files: Files written for several images together: a detector's results file and the list of
            its images, and videos.
    """
    predictions: List[Prediction]
    failures: List[Failure]
    classes: Sequence[str]
    files: List[str]


class Inferencer:
    """A trained detector, segmentor or classifier, ready for images, folders, patterns and videos.

    mmdet's ``DetInferencer`` or mmseg's ``MMSegInferencer`` does the work; a classifier of
    mmpretrain gets images as a test run prepares them.

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
        ValueError: For a config of another task or without a visualizer, or a device that is not
            available.

    Example:
        >>> from fastervit_mm.apis import Inferencer
        >>> inferencer = Inferencer('mmdet/cascade_fvit', 'epoch_36.pth')
        >>> results = inferencer(['street.jpg', 'photos/'], out_dir='out')
    """

    def __init__(self, config: Union[str, os.PathLike, Config], checkpoint: str,
                 device: Optional[str] = None, deploy: bool = False):
        if not isinstance(config, Config):
            config = read_config(config)
        scope = config.get('default_scope')
        if scope not in ('mmdet', 'mmseg', 'mmpretrain'):
            raise ValueError(f'config: default_scope={scope!r}; give a config of a detector '
                             '(mmdet), a segmentor (mmseg) or a classifier (mmpretrain)')
        _check_device(device)
        self.segments, self.classifies = scope == 'mmseg', scope == 'mmpretrain'
        init_default_scope(scope)
        # mmdet and mmseg look for the pipeline outside of wrappers, and change it.
        config = copy.deepcopy(config)
        config.test_dataloader.dataset = dataset_config(config)
        if config.get('visualizer'):
            config.visualizer = readable(config.visualizer)
        meta = categories.metainfo(config)
        with quiet_libraries(), strict_loaders(), warnings.catch_warnings():
            # About a visualizer without a folder to write to, and about classes that are set below.
            warnings.filterwarnings('ignore', message='.*(save_dir|dataset_meta).*')
            self.base = _build(scope, config, os.fspath(checkpoint), device, meta)
        self.model = use_onednn(self.base.model)
        if deploy:
            switch_to_deploy(self.model)
        self._describe(meta)
        self.categories = None
        if scope == 'mmdet':
            self.categories = categories.find_categories(config, self.classes)
        # As datasets with reduce_zero_label number their classes in label maps: from 1.
        self._label_offset = int(bool(
            config.test_dataloader.dataset.get('reduce_zero_label', meta.get(
                'reduce_zero_label', False)))) if self.segments else 0

    def __call__(self, inputs: Union[Input, Sequence[Input]], out_dir: Optional[str] = None,
                 batch_size: int = 1, score_thr: float = 0.3, show_progress: bool = False
                 ) -> Results:
        """Predict, and write overlays and predictions if there is a folder for them.

        In ``out_dir``: ``vis/`` with overlays (a video of a video; images below 480 pixels are
        enlarged up to three times, so that labels can be read); for detectors
        ``predictions.json``, a COCO results file of all images, and ``images.json``, which says
        what its image and category ids mean (``COCO('images.json').loadRes('predictions.json')``
        reads both); for segmentors ``pred/`` with label maps (PNG, a folder of them for a video;
        numbered as in the dataset's own label maps, so ADE20K's from 1); for classifiers
        ``predictions.json``, each image's likeliest classes. Image ids are those of
        the config's annotation file for images that it lists.

        Args:
            inputs: Paths of images, videos and folders, patterns such as ``'photos/**/*.jpg'``,
                and images as arrays, (H, W, 3) BGR uint8; one or several.
            out_dir: Folder for results. Default None, nothing is written.
            batch_size: Images that the network gets at once. A segmentor gets only images of equal
                size together. Default 1.
            score_thr: Detections with a lower score are neither drawn nor written. Default 0.3.
            show_progress: Show a progress bar. Default False.

        Raises:
            ValueError: For an argument out of range, or a folder that cannot be written to. Inputs
                that cannot be read raise nothing; ``Results.failures`` lists them.
        """
        if batch_size < 1:
            raise ValueError(f'batch_size={batch_size}: give at least 1')
        if not 0 <= score_thr <= 1:
            raise ValueError(f'score_thr={score_thr}: give a score from 0 to 1')
        for problem in unwritable('out', out_dir):
            raise ValueError(problem)
        out = None if out_dir is None else Path(out_dir)
        sources, failures = collect(inputs)
        predictions: List[Prediction] = []
        coco = CocoFiles(self.classes, self.categories) if out and self.categories else None
        videos = Videos()
        total = sum(1 if source.frames is None else source.frames for source in sources)
        columns = (TextColumn('Inference'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                   TimeRemainingColumn())
        with Progress(*columns, disable=not show_progress) as progress:
            task = progress.add_task('', total=total)
            try:
                for items, samples in self._predict(sources, batch_size, failures):
                    for item, sample in zip(items, samples):
                        prediction = self._finish(item, sample, score_thr, out, videos)
                        predictions.append(prediction)
                        if coco:
                            coco.add(prediction)
                    progress.advance(task, len(items))
                progress.update(task, total=len(predictions))
            finally:  # an image that ends the run does not lose earlier results
                files = videos.close()
                if coco:
                    files += coco.write(out)
                if out and self.classifies:
                    files.append(write_classes(out / 'predictions.json', predictions))
        return Results(predictions, failures, self.classes, files)

    def _predict(self, sources: Iterable[Source], batch_size: int, failures: List[Failure]
                 ) -> Iterator[Tuple[list, list]]:
        """Batches of (source, frame, image), and the data samples that the network returns."""
        def run():
            done = self._forward(waiting, failures)
            waiting.clear()
            return done

        waiting: list = []
        for source in sources:
            try:
                for frame, image in images(source):
                    data = self.base.pipeline(image)
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

    def _forward(self, batch: list, failures: List[Failure]) -> Tuple[list, list]:
        try:
            samples = self.base.forward(self.base.collate_fn([data for _, data in batch]))
            return [item for item, _ in batch], samples
        except ValueError as error:  # such as an image smaller than the network can take
            if len(batch) == 1:
                source, frame, _ = batch[0][0]
                where = '' if frame is None else f'frame {frame}: '
                failures.append(Failure(source.given, where + _one_line(error)))
                return [], []
        singly = [self._forward([one], failures) for one in batch]
        return sum((items for items, _ in singly), []), sum((list(s) for _, s in singly), [])

    def _finish(self, item: tuple, sample: Any, score_thr: float, out: Optional[Path],
                videos: Videos) -> Prediction:
        source, frame, image = item
        size = tuple(int(n) for n in sample.ori_shape[:2])
        sample = sample.cpu()
        files, instances, labels, top = {}, None, None, None
        if self.classifies:
            best = sample.pred_score.topk(min(5, len(self.classes)))
            top = [dict(label=label, name=self.classes[label], score=score)
                   for score, label in zip(best.values.tolist(), best.indices.tolist())]
        elif self.segments:
            labels = sample.pred_sem_seg.data[0].numpy()
            labels = labels.astype(np.min_scalar_type(len(self.classes)))
        else:
            kept = sample.pred_instances
            sample.pred_instances = kept[kept.scores >= score_thr]
            instances = self._instances(sample)
        if out is not None:
            name = source.name if frame is None else f'{source.name}/{frame:06}'
            if self.segments:
                files['label_map'] = write_label_map(out / 'pred' / f'{name}.png', labels,
                                                     self._label_offset)
            drawn = self._draw(image, sample, source.name)
            path = out / 'vis' / f'{source.name}.{"jpg" if frame is None else "mp4"}'
            files['overlay'] = str(path)
            if frame is None:
                mmcv.imwrite(drawn, str(path))
            else:
                videos.add(path, drawn, source.fps)
        return Prediction(source.given, frame, size, instances, top, files,
                          labels if out is None else None, self._label_offset)

    def _instances(self, sample: Any) -> List[Dict]:
        found = self.base.pred2dict(sample)
        boxes = np.asarray(found['bboxes'], dtype=float).reshape(-1, 4)
        boxes[:, 2:] -= boxes[:, :2]
        ids = self.categories.ids
        instances = [dict(category_id=ids[label], bbox=box, score=score) for label, box, score in
                     zip(found['labels'], boxes.tolist(), found['scores'])]
        for instance, mask in zip(instances, found.get('masks', ())):
            instance['segmentation'] = dict(size=[int(n) for n in mask['size']],
                                            counts=mask['counts'])
        return instances

    def _draw(self, image: Union[str, np.ndarray], sample: Any, name: str) -> np.ndarray:
        """The overlay, (H, W, 3) BGR."""
        if isinstance(image, str):
            image = mmcv.imread(image)
        drawer = self.base.visualizer
        if self.classifies:
            return drawer.visualize_cls(image[..., ::-1], sample, self.classes, draw_gt=False,
                                        name=name)[..., ::-1]
        options = {} if self.segments else dict(pred_score_thr=-1.)  # already filtered by score
        drawer.add_datasample(name, image[..., ::-1], sample, draw_gt=False, **options)
        return drawer.get_image()[..., ::-1]

    def _describe(self, meta: dict) -> None:
        """Give model and visualizer the checkpoint's classes, or else those of the dataset."""
        known = self.model.dataset_meta
        if not self.base.has_meta and meta.get('classes'):
            known = meta
        if self.classifies and not known.get('classes'):  # such as of ImageNet-21K
            known = dict(known, classes=tuple(map(str, range(self.model.head.num_classes))))
        palette = known.get('palette') or meta.get('palette')
        self.model.dataset_meta = categories.drawable({**known, 'palette': palette})
        self.classes = self.model.dataset_meta['classes']
        drawer = self.base.visualizer
        if drawer is None:
            raise ValueError('config: it has no visualizer; add that of the default_runtime base '
                             'of mmdet, mmseg or mmpretrain')
        drawer.dataset_meta = self.model.dataset_meta


def _build(scope: str, config: Config, checkpoint: str, device: Optional[str], meta: dict) -> Any:
    """mmdet's or mmseg's inferencer, which refuses a checkpoint that leaves tensors random."""
    if scope == 'mmpretrain':
        return _Classifier(config, checkpoint, device)
    if scope == 'mmdet':
        from mmdet.apis import DetInferencer as Base

        # Without a palette, mmdet would build the test dataset to get one.
        options = dict(palette=meta.get('palette') or 'random', show_progress=False)
    else:
        from mmseg.apis import MMSegInferencer as Base
        options = {}

    class Complete(Base):

        has_meta = False

        def _load_weights_to_model(self, model, loaded, cfg):
            loaded = rename_published(loaded, model, checkpoint)
            check_complete(model, loaded, checkpoint)
            self.has_meta = 'dataset_meta' in loaded.get('meta', {})
            super()._load_weights_to_model(model, loaded, cfg)

        def _init_collate(self, cfg):
            # mmengine warns that mmdet and mmseg have no such function before it takes this one.
            return super()._init_collate(cfg) if 'collate_fn' in cfg.test_dataloader else (
                pseudo_collate)

    return Complete(model=config, weights=checkpoint, device=device, **options)


class _Classifier:
    """A classifier of mmpretrain with what is used here of mmengine's inferencers.

    mmpretrain's own reads every image with OpenCV, whatever the config's pipeline does.
    """

    def __init__(self, config: Config, checkpoint: str, device: Optional[str]):
        self.model = load_model(config, checkpoint, device or get_device())
        self.has_meta = bool(self.model.dataset_meta)
        self.forward = self.model.test_step
        self.collate_fn = pseudo_collate
        self.visualizer = None
        if config.get('visualizer'):
            self.visualizer = VISUALIZERS.build({
                **config.visualizer, 'vis_backends': None, 'save_dir': None,
                'name': f'classifier{id(self)}'})
        self._config = config

    def pipeline(self, image: Union[str, np.ndarray]) -> Dict:
        """An image, by its path or as (H, W, 3) BGR, as a test run prepares it."""
        return {name: value[0] for name, value in image_batch(self._config, image).items()}


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
    if isinstance(error, cv2.error):  # an image so thin that its resized side has no pixel
        return f'the pipeline cannot take an image of this size ({error.err} in {error.func})'
    return f'{(str(error).strip() or type(error).__name__)}'.split('\n')[0]
