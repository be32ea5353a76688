"""Predictions and attention of one trained checkpoint on one image at a time."""
import copy
from itertools import count
from types import SimpleNamespace
from typing import Callable, List, NamedTuple, Tuple

import numpy as np
import torch
from mmengine.registry import init_default_scope

from ..engine import launch
from ..engine.hooks import CompleteCheckpointHook
from ..insight import attention_at, subject_of
from ..insight.drawing import draw_place
from ..weights import read_checkpoint
from .finding import Trained

_TASKS = {'mmdet': 'objects', 'mmseg': 'areas', 'mmpretrain': 'classes'}
_unused_number = count()


class Prediction(NamedTuple):
    """What a network says of an image.

    Attributes:
        picture: (H, W, 3) uint8 RGB, the image with boxes, masks or areas drawn; it may be larger
            than the image.
        rows: What was found and how much of it, in words.
    """
    picture: np.ndarray
    rows: List[Tuple[str, str]]


class Predictor:
    """A trained detector, segmentor or classifier.

    Args:
        trained: Which.
        device: Where to compute. Default the CPU.

    Raises:
        CheckpointError: For a checkpoint that cannot be read or does not fill the model.
        FileNotFoundError: For a file that is not there.
        ValueError: For a config of another library, or without a FasterViT.
    """

    def __init__(self, trained: Trained, device: str = 'cpu'):
        self.cfg = launch.load_config(str(trained.config))
        scope = self.cfg.get('default_scope')
        if scope not in _TASKS:
            raise ValueError(f'config={str(trained.config)!r}: default_scope={scope!r}; the page '
                             f'shows models of {", ".join(_TASKS)}')
        self.task = _TASKS[scope]
        init_default_scope(scope)
        build: Callable = getattr(self, f'_build_{scope}')
        content = read_checkpoint(str(trained.checkpoint))
        self.model = build(str(trained.checkpoint), content, device).eval()
        CompleteCheckpointHook().after_load_checkpoint(
            SimpleNamespace(model=self.model, _load_from=str(trained.checkpoint)), content)
        # A copy: mmdet and mmseg change the pipeline of theirs as they go.
        self.subject = subject_of(self.model, copy.deepcopy(self.cfg), trained.name)
        self._predict: Callable = getattr(self, f'_predict_{scope}')
        self.num_blocks = len(self.subject.backbone.stages[2].blocks)

    @torch.no_grad()
    def predict(self, image: np.ndarray, score_thr: float = 0.3) -> Prediction:
        """Boxes and masks, areas, or classes.

        Args:
            image: (H, W, 3) uint8 BGR.
            score_thr: Objects with a lower score are left out. Default 0.3.
        """
        init_default_scope(self.cfg.default_scope)  # a model of another library may have run before
        return self._predict(image, score_thr)

    def attention(self, image: np.ndarray, point: Tuple[float, float],
                  block: int = 0) -> np.ndarray:
        """What a place looks at in a block of stage 3: (H, W, 3) uint8 RGB.

        Args:
            image: (H, W, 3) uint8 BGR.
            point: x and y in the image.
            block: From 0.
        """
        prepared = self.subject.prepare(image)
        place = prepared.to_inputs(point)
        stage = attention_at(self.subject.backbone, prepared.inputs, place)[0]
        return draw_place(prepared, place, stage, block)

    def _build_mmdet(self, checkpoint: str, content: dict, device: str):
        from mmdet.apis import init_detector

        # Without a palette given mmdet builds the test set to ask it for one.
        palette = content.get('meta', {}).get('dataset_meta', {}).get('palette', 'random')
        return init_detector(self.cfg, checkpoint, palette=palette, device=device)

    def _build_mmseg(self, checkpoint: str, content: dict, device: str):
        from mmengine.model import revert_sync_batchnorm
        from mmseg.apis import init_model
        return revert_sync_batchnorm(init_model(self.cfg, checkpoint, device=device))

    def _build_mmpretrain(self, checkpoint: str, content: dict, device: str):
        from mmpretrain.apis import get_model
        return get_model(self.cfg, pretrained=checkpoint, device=device)

    def _predict_mmdet(self, image: np.ndarray, score_thr: float) -> Prediction:
        from mmdet.apis import inference_detector
        found = inference_detector(self.model, image)
        picture = self._drawn(image, found, pred_score_thr=score_thr)
        instances = found.pred_instances
        instances = instances[instances.scores >= score_thr]
        names = self.model.dataset_meta['classes']
        rows = [(names[label], f'{score:.2f}') for label, score in sorted(
            zip(instances.labels.tolist(), instances.scores.tolist()), key=lambda r: -r[1])]
        return Prediction(picture, rows)

    def _predict_mmseg(self, image: np.ndarray, score_thr: float) -> Prediction:
        from mmseg.apis import inference_model
        found = inference_model(self.model, image)
        names = self.model.dataset_meta['classes']
        share = torch.bincount(found.pred_sem_seg.data.flatten(), minlength=len(names)).double()
        share = 100 * share / share.sum()
        rows = [(names[i], f'{share[i]:.1f} %') for i in share.argsort(descending=True).tolist()
                if share[i] > 0]
        return Prediction(self._drawn(image, found), rows)

    def _predict_mmpretrain(self, image: np.ndarray, score_thr: float) -> Prediction:
        from mmpretrain.apis import ImageClassificationInferencer
        scores = ImageClassificationInferencer(self.model)(image)[0]['pred_scores']
        names = getattr(self.model, '_dataset_meta', {}).get('classes') or range(len(scores))
        rows = [(str(names[i]), f'{scores[i]:.2f}') for i in np.argsort(-scores)[:5]]
        return Prediction(np.ascontiguousarray(image[..., ::-1]), rows)

    def _drawn(self, image: np.ndarray, found, **settings) -> np.ndarray:
        from mmengine.registry import VISUALIZERS
        if not hasattr(self, '_visualizer'):
            # mmengine keeps visualizers by name; no backends: nothing is written anywhere.
            self._visualizer = VISUALIZERS.build({
                **self.cfg.visualizer, 'vis_backends': None, 'save_dir': None,
                'name': f'page{next(_unused_number)}'})
            self._visualizer.dataset_meta = self.model.dataset_meta
        self._visualizer.add_datasample('page', np.ascontiguousarray(image[..., ::-1]),
                                        found.cpu(), draw_gt=False, **settings)
        return self._visualizer.get_image()
