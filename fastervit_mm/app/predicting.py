"""Predictions and attention of one trained checkpoint on one image at a time."""
from itertools import count
from typing import Callable, List, NamedTuple, Tuple

import numpy as np
import torch
from mmengine.registry import VISUALIZERS

from ..apis.categories import drawable, metainfo
from ..engine import launch
from ..engine.enlarging import readable
from ..engine.onednn import use_onednn
from ..insight import attention_at, subject_of
from ..insight.attention import main_stage
from ..insight.drawing import draw_place
from ..models import image_batch, load_model
from .finding import Trained

_TASKS = {'mmdet': 'objects', 'mmseg': 'areas', 'mmpretrain': 'classes'}
_unused_number = count()


class Prediction(NamedTuple):
    """What a network predicts on an image.

    Attributes:
        picture: (H, W, 3) uint8 RGB, the image with boxes, masks or areas drawn; it may be larger
            than the image.
        rows: Each object, area or class, and its score or share, as text.
    """
    picture: np.ndarray
    rows: List[Tuple[str, str]]


class Predictor:
    """A trained detector, segmentor or classifier.

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
        scope = self.cfg.get('default_scope')
        if scope not in _TASKS:
            raise ValueError(f'config={str(trained.config)!r}: default_scope={scope!r}; the page '
                             f'shows models of {", ".join(_TASKS)}')
        self.task = _TASKS[scope]
        self.model = use_onednn(load_model(self.cfg, str(trained.checkpoint), device))
        self.meta = {**metainfo(self.cfg), **self.model.dataset_meta}
        self.subject = subject_of(self.model, self.cfg, trained.name)
        self._show: Callable = getattr(self, f'_show_{scope}')
        self.num_blocks = len(self.subject.backbone.stages[2].blocks)

    @torch.no_grad()
    def predict(self, image: np.ndarray, score_thr: float = 0.3) -> Prediction:
        """Predict boxes and masks, areas, or classes.

        Args:
            image: (H, W, 3) uint8 BGR.
            score_thr: Objects with a lower score are left out. Default 0.3.
        """
        found = self.model.test_step(image_batch(self.cfg, image))[0]
        return self._show(image, found, score_thr)

    def attention(self, image: np.ndarray, point: Tuple[float, float],
                  block: int = 0) -> np.ndarray:
        """A figure of what a place attends to in a block of stage 3: (H, W, 3) uint8 RGB.

        Args:
            image: (H, W, 3) uint8 BGR.
            point: x and y in the image.
            block: Number of the block, from 0. Default 0.
        """
        prepared = self.subject.prepare(image)
        place = prepared.to_inputs(point)
        stage = main_stage(attention_at(self.subject.backbone, prepared.inputs, place))
        return draw_place(prepared, place, stage, block)

    def _show_mmdet(self, image: np.ndarray, found, score_thr: float) -> Prediction:
        picture = self._drawn(image, found, pred_score_thr=score_thr)
        instances = found.pred_instances
        instances = instances[instances.scores >= score_thr]
        rows = [(self.meta['classes'][label], f'{score:.2f}') for label, score in sorted(
            zip(instances.labels.tolist(), instances.scores.tolist()), key=lambda r: -r[1])]
        return Prediction(picture, rows)

    def _show_mmseg(self, image: np.ndarray, found, score_thr: float) -> Prediction:
        names = self.meta['classes']
        share = torch.bincount(found.pred_sem_seg.data.flatten(), minlength=len(names)).double()
        share = 100 * share / share.sum()
        rows = [(names[i], f'{share[i]:.1f} %') for i in share.argsort(descending=True).tolist()
                if share[i] > 0]
        return Prediction(self._drawn(image, found), rows)

    def _show_mmpretrain(self, image: np.ndarray, found, score_thr: float) -> Prediction:
        scores = found.pred_score
        names = self.meta.get('classes') or range(len(scores))
        best = scores.argsort(descending=True)[:5].tolist()
        rows = [(str(names[i]), f'{scores[i]:.2f}') for i in best]
        return Prediction(np.ascontiguousarray(image[..., ::-1]), rows)

    def _drawn(self, image: np.ndarray, found, **settings) -> np.ndarray:
        if not hasattr(self, '_visualizer'):
            # mmengine keeps visualizers by name; no backends: nothing is written anywhere.
            self._visualizer = VISUALIZERS.build({
                **readable(self.cfg.visualizer), 'vis_backends': None, 'save_dir': None,
                'name': f'page{next(_unused_number)}'})
            self._visualizer.dataset_meta = drawable(self.meta)
        self._visualizer.add_datasample('page', np.ascontiguousarray(image[..., ::-1]),
                                        found.cpu(), draw_gt=False, **settings)
        return self._visualizer.get_image()
