"""Layers of transformer heads, for maps of every size.

Sizes of levels are integers, where mmdet has tensors. Shapes: B images, D channels, N cells of all
levels, Q queries, K keys.
"""
import copy
from typing import Iterable, List, Mapping, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmcv.ops import MultiScaleDeformableAttention
from torch import Tensor, nn

from ...backbone.windows import dense
from . import boxes as ops

Sizes = Sequence[Tuple[int, int]]  # height and width of each level


def rows(features: Tensor) -> Tensor:
    """A map as a row for each cell: (B, D, h, w) -> (B, h w, D)."""
    return ops.rows(features, features.shape[1])


def sizes_of(maps: Sequence[Tensor]) -> Sizes:
    """Height and width of each map."""
    return [(x.shape[2], x.shape[3]) for x in maps]


def centres(shapes: Sizes, like: Tensor) -> List[Tensor]:
    """Relative x and y of the cells of maps, each (h w, 2)."""
    levels = []
    for h, w in shapes:
        y, x = ((torch.arange(n, device=like.device) + 0.5) / n for n in (h, w))
        levels.append(torch.stack([x.repeat(h), y.view(-1, 1).repeat(1, w).view(-1)], -1))
    return levels


def encode(layers: Iterable[nn.Module], maps: Sequence[Tensor], positional_encoding: nn.Module,
           level_embed: Tensor) -> Tensor:
    """Run encoder layers with deformable attention.

    Args:
        layers: mmdet's.
        maps: Each (B, D, h, w).
        positional_encoding: mmdet's.
        level_embed: (levels, D).

    Returns:
        (B, N, D).
    """
    shapes = sizes_of(maps)
    positions = torch.cat([rows(positional_encoding(None, input=x)) + embedding
                           for x, embedding in zip(maps, level_embed)], 1)
    places = torch.cat(centres(shapes, maps[0]))[None, :, None].expand(-1, -1, len(maps), -1)
    memory = torch.cat([rows(x) for x in maps], 1)
    for layer in layers:
        memory = layer(query=memory, query_pos=positions, key_padding_mask=None,
                       reference_points=places, spatial_shapes=shapes)
    return memory


def swapped(module: nn.Module, others: Mapping[type, type] = {}) -> nn.Module:
    """A copy that can be captured for every size.

    Args:
        module: The module, whose attention is replaced.
        others: Replacements of other classes.
    """
    module, swaps = copy.deepcopy(module), {**_SWAPS, **others}
    for part in module.modules():
        part.__class__ = swaps.get(type(part), type(part))
    return module


class IntegerSizes(MultiScaleDeformableAttention):
    """Deformable attention that takes the levels' sizes as pairs of integers."""

    def forward(self, query: Tensor, value: Tensor = None, identity: Tensor = None,
                query_pos: Tensor = None, reference_points: Tensor = None,
                spatial_shapes: Sizes = (), **kwargs) -> Tensor:
        """As mmcv's, batch first and without a mask."""
        value = query if value is None else value
        identity = query if identity is None else identity
        query = query if query_pos is None else query + query_pos
        B, Q = query.shape[:2]
        shape = B, Q, self.num_heads, self.num_levels, self.num_points
        value = self.value_proj(value).view(B, value.shape[1], self.num_heads, -1)
        offsets = self.sampling_offsets(query).view(*shape, 2)
        weights = self.attention_weights(query).view(*shape[:3], -1).softmax(-1).view(shape)
        points = reference_points[:, :, None, :, None]
        if points.shape[-1] == 2:
            offsets = torch.stack([level / torch.stack([level.new_ones(()) * n for n in (w, h)])
                                   for level, (h, w) in zip(offsets.unbind(3), spatial_shapes)], 3)
        else:
            offsets = offsets / self.num_points * points[..., 2:] * 0.5
        places = 2 * (points[..., :2] + offsets) - 1
        levels = value.split([h * w for h, w in spatial_shapes], 1)
        found = [F.grid_sample(
            dense(x.permute(0, 2, 3, 1)).view(B * self.num_heads, -1, h, w),
            dense(at.transpose(1, 2)).view(B * self.num_heads, Q, self.num_points, 2),
            align_corners=False) for x, at, (h, w) in zip(levels, places.unbind(3), spatial_shapes)]
        weights = dense(weights.transpose(1, 2)).view(B * self.num_heads, 1, Q, -1)
        output = (torch.stack(found, -2).flatten(-2) * weights).sum(-1).view(B, -1, Q)
        return self.output_proj(output.transpose(1, 2)) + identity


class SpeltOutAttention(nn.MultiheadAttention):
    """Attention as products and a softmax: PyTorch's asks whether the batch is 1."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor,
                attn_mask: Optional[Tensor] = None, key_padding_mask: None = None
                ) -> Tuple[Tensor, None]:
        """(Q, B, D), (K, B, D), (K, B, D) -> (Q, B, D).

        ``attn_mask`` (B heads, Q, K) is true for keys that a query does not see.
        """
        Q, B, D = query.shape
        projected = [F.linear(dense(x), *layer) for x, *layer in zip(
            (query, key, value), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3))]
        q, k, v = (dense(x.view(x.shape[0], B, self.num_heads, -1).permute(1, 2, 0, 3))
                   for x in projected)
        logits = (q * self.head_dim**-0.5) @ dense(k.transpose(-2, -1))
        if attn_mask is not None:
            logits = logits.masked_fill(attn_mask.view(logits.shape), -torch.inf)
        x = dense((logits.softmax(dim=-1) @ v).permute(2, 0, 1, 3))
        return self.out_proj(x.view(Q, B, D)), None


# Only the class is swapped: weights and names stay.
_SWAPS = {MultiScaleDeformableAttention: IntegerSizes, nn.MultiheadAttention: SpeltOutAttention}
