"""Predictions and attention of a trained checkpoint, image by image."""
from typing import List, NamedTuple, Tuple

import numpy as np
import torch

from ..apis import Inferencer
from ..datasets.images import as_picture
from ..engine import launch
from ..engine.results import segments_of
from ..insight import attention_at, subject_of
from ..insight.attention import main_stage
from ..insight.drawing import draw_place
from ..pipelines import model_batch, read_by
from .finding import Trained

_TASKS = {'mmdet': 'objects', 'mmseg': 'areas', 'mmpretrain': 'classes'}


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
            picture, shown = as_picture(image)
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
        total = np.prod(sample.ori_shape)
        return [(name, f'{100 * area / total:.1f} %') for name, area in sorted(
            found, key=lambda row: -row[1]) if area]
