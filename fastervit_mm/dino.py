"""DINO's head and resizing as in the official code.

Importing this registers both. Settings bring the rest of mmdet 3.3's DINO into agreement:
``configs/mmdet/dino_fvit_4_21k_224.py``, ``docs/dino.md``.
"""
from typing import List, Tuple

import torch
from mmdet.datasets.transforms import Resize
from mmdet.models.dense_heads import DINOHead
from mmdet.models.layers import inverse_sigmoid
from mmdet.registry import MODELS, TRANSFORMS
from torch import Tensor


@MODELS.register_module()
class OfficialDINOHead(DINOHead):
    """mmdet's ``DINOHead`` with the official bounds on references.

    Both take references, between 0 and 1, back through the sigmoid. The official code keeps them
    0.001 from both ends, mmdet's decoder too, but its head 0.00001. Boxes as large as the image
    move by up to 2e-4 of it.
    """

    def forward(self, hidden_states: Tensor, references: List[Tensor]) -> Tuple[Tensor, Tensor]:
        """Classes and boxes after each layer of the decoder.

        Args:
            hidden_states: (layers, B, queries, width).
            references: (B, queries, 4) for each layer: centre, width and height, relative.

        Returns:
            (layers, B, queries, classes), logits, and (layers, B, queries, 4), relative boxes.
        """
        classes, boxes = [], []
        for layer, (state, reference) in enumerate(zip(hidden_states, references)):
            classes.append(self.cls_branches[layer](state))
            boxes.append((self.reg_branches[layer](state)
                          + inverse_sigmoid(reference, eps=1e-3)).sigmoid())
        return torch.stack(classes), torch.stack(boxes)


@TRANSFORMS.register_module()
class OfficialDINOResize(Resize):
    """Resize an image to a shorter side of 800 pixels.

    As the official code does in evaluation: sizes are rounded down. mmdet's ``Resize`` sometimes
    makes the shorter side 799.

    Args:
        short: Pixels of the shorter side. Default 800.
        longest: Largest longer side in pixels; the shorter one shrinks to fit. Default 1333.
        **kwargs: Those of mmdet's ``Resize``. Default ``backend='pillow'``, as the official code.
    """

    def __init__(self, short: int = 800, longest: int = 1333, **kwargs):
        super().__init__(scale=(longest, short), **{'backend': 'pillow', **kwargs})
        self.short, self.longest = short, longest
        self.keep_ratio = False  # ``scale`` is the exact size

    def transform(self, results: dict) -> dict:
        """Set ``scale``, then resize as mmdet does."""
        height, width = results['img'].shape[:2]
        small, large = min(height, width), max(height, width)
        short = self.short
        if large / small * short > self.longest:
            short = int(round(self.longest * small / large))
        long = int(short * large / small)
        self.scale = (short, long) if width < height else (long, short)
        return super().transform(results)
