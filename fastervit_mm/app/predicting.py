"""Predictions and attention of a trained checkpoint or an exported file, image by image."""
from typing import List, NamedTuple, Tuple, Union

import numpy as np
import torch

from ..apis import Inferencer
from ..engine import launch
from ..engine.results import segments_of
from ..export import runtime
from ..insight import attention_at, subject_of
from ..insight.attention import main_stage
from ..insight.drawing import draw_place
from ..pipelines import model_batch, read_by, viewed
from .finding import Trained

_TASKS = {'mmdet': 'objects', 'mmseg': 'areas', 'mmpretrain': 'classes',
          'detection': 'objects', 'segmentation': 'areas', 'classification': 'classes'}


class Prediction(NamedTuple):
    """Prediction for an image.

    Attributes:
        picture: (H, W, 3) uint8 RGB, the image with boxes, masks or areas drawn; it may be larger
            than the image.
        rows: Each object, area or class, and its score or share, as text.
        shown: How the picture shows an image without 8-bit colours, in words; else ``''``.
    """
    picture: np.ndarray
    rows: List[Tuple[str, str]]
    shown: str = ''


class Predictor:
    """Trained detector, segmentor or classifier.

    Args:
        trained: Its config and checkpoint.
        device: Where to compute. Default the CPU.

    Raises:
        CheckpointError: For a checkpoint that cannot be read or does not fill the model.
        FileNotFoundError: For a file that does not exist.
        ValueError: For a config of another library, or without a FasterViT.
    """

    def __init__(self, trained: Trained, device: str = 'cpu'):
        self.cfg = launch.load_config(str(trained.config))
        self.inferencer = Inferencer(self.cfg, str(trained.checkpoint), device)
        self.task = _TASKS[self.cfg.default_scope]
        self.subject = subject_of(self.inferencer.model, self.cfg, trained.name)
        self.num_blocks = len(self.subject.backbone.stages[2].blocks)

    def read(self, file: str) -> np.ndarray:
        """Read an image by the network's pipeline: (H, W[, C])."""
        return read_by(self.cfg, file)

    @torch.no_grad()
    def predict(self, image: np.ndarray, score_thr: float = 0.3) -> Prediction:
        """Predict boxes and masks, areas, or classes.

        Args:
            image: As :meth:`read` returns it.
            score_thr: Objects with a lower score are left out. Default 0.3.

        Raises:
            ValueError: For an image that the network does not take.
        """
        model = self.inferencer.model
        sample = model.test_step(model_batch(model, self.cfg, image))[0].cpu()
        sample = self.inferencer.kept(sample, score_thr)
        if self.inferencer.classifies:
            picture, shown = viewed(self.cfg, image)
            picture = np.ascontiguousarray(picture[..., ::-1])
        else:
            picture, shown = self.inferencer.drawn(image, sample)
        return Prediction(picture, self._rows(sample), shown)

    def attention(self, image: np.ndarray, point: Tuple[float, float],
                  block: int = 0) -> np.ndarray:
        """Draw a place's attention in stage 3, (H, W, 3) RGB.

        Args:
            image: As :meth:`read` returns it.
            point: x and y in the image.
            block: Number of the block, from 0. Default 0.
        """
        prepared = self.subject.prepare(image)
        place = prepared.to_inputs(point)
        stage = main_stage(attention_at(self.subject.backbone, prepared.inputs, place))
        return draw_place(prepared, place, stage, block)

    def _rows(self, sample) -> List[Tuple[str, str]]:
        names = self.inferencer.classes
        if self.inferencer.classifies:
            best = sample.pred_score.argsort(descending=True)[:5].tolist()
            return [(names[i], f'{sample.pred_score[i]:.2f}') for i in best]
        if self.inferencer.segments:
            areas = torch.bincount(sample.pred_sem_seg.data.flatten().long(), minlength=len(names))
            found = list(zip(names, areas.tolist()))
        elif 'pred_panoptic_seg' in sample:
            segments = segments_of(sample, len(names))[1]
            found = [(names[segment['label']], segment['area']) for segment in segments]
        else:
            found = sample.pred_instances
            return [(names[label], f'{score:.2f}') for label, score in sorted(
                zip(found.labels.tolist(), found.scores.tolist()), key=lambda row: -row[1])]
        return _shares(found, np.prod(sample.ori_shape))


class FilePredictor:
    """Exported detector, segmentor or classifier, with the methods of :class:`Predictor`.

    Args:
        path: An ``.onnx`` file of a whole network.

    Raises:
        ValueError: For a file that is not such a network.
    """
    num_blocks = 0

    def __init__(self, path: str):
        self.network = runtime.Network(path)
        self.task = _TASKS[self.network.task]

    def read(self, file: str) -> np.ndarray:
        """Read an image: (H, W, 3) RGB."""
        try:
            return runtime.read_image(file)
        except Exception as error:  # noqa: BLE001  decoders raise anything
            raise ValueError(f'{file}: {error}') from error

    def predict(self, image: np.ndarray, score_thr: float = 0.3) -> Prediction:
        """Predict as :meth:`Predictor.predict`."""
        network = self.network
        found = network(image, score_thr)
        if network.task == 'detection':
            rows = [(network.name(label), f'{score:.2f}') for label, score in zip(
                found['labels'].tolist(), found['scores'].tolist())]
        elif network.task == 'classification':
            rows = [(best['name'], f'{best["score"]:.2f}')
                    for best in runtime.likeliest(found, network)]
        else:
            rows = _shares([(network.name(label), area) for label, area in enumerate(
                np.bincount(found['labels'].ravel()).tolist())], found['labels'].size)
        return Prediction(np.asarray(runtime.draw(image, found, network)), rows)

    def attention(self, image: np.ndarray, point: Tuple[float, float], block: int = 0) -> None:
        """None: a file does not give it."""


def predictor_of(trained: Trained, device: str = 'cpu') -> Union[Predictor, FilePredictor]:
    """Open a checkpoint or an exported file; for a file the device is onnxruntime's."""
    if trained.config is None:
        return FilePredictor(str(trained.checkpoint))
    return Predictor(trained, device)


def _shares(areas: List[Tuple[str, int]], total: int) -> List[Tuple[str, str]]:
    """Shares of an image, the largest first."""
    return [(name, f'{100 * area / total:.1f} %') for name, area in sorted(
        areas, key=lambda row: -row[1]) if area]
