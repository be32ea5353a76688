"""Effective receptive field (Luo et al. 2016, arXiv 1701.04128)."""
from contextlib import contextmanager
from typing import Iterator, List, NamedTuple, Sequence

import torch
from torch import Tensor

from ..backbone import StagedBackbone, SwinHAT
from ..backbone.attention import Mixer
from ..backbone.stages import ConvStage
from .attention import Grid, check_inputs


class Reach(NamedTuple):
    """Rectangle of pixels; ``bottom`` and ``right`` are just outside."""
    top: int
    bottom: int
    left: int
    right: int


@contextmanager
def carriers_cut(backbone: StagedBackbone) -> Iterator[StagedBackbone]:
    """Context in which carriers do not affect cells.

    In each hierarchical block the carriers are masked out of the attention of the window's cells:
    their logits are minus infinity, so the softmax distributes its whole weight among the window's
    own cells. If the stage propagates its carriers, adding them to the map is skipped too. Carriers
    are still computed. No weight changes; a network trained without carriers would have other
    weights.

    Args:
        backbone: A FasterViT; unchanged afterwards.
    """
    def mask(carriers: int):
        def masked(layer, args):
            bias = args[1].clone()  # in a deployed network it is a constant
            bias[:, carriers:, :carriers] = -torch.inf
            return args[0], bias
        return masked

    blocks = [m for m in backbone.modules() if getattr(m, 'ct_size', 0) and isinstance(m, Mixer)]
    hooks = [block.attn.register_forward_pre_hook(mask(block.ct_size**2)) for block in blocks]
    propagating = [block for block in blocks if getattr(block, 'propagate', False)]
    for block in propagating:
        block.propagate = False
    try:
        yield backbone
    finally:
        for hook in hooks:
            hook.remove()
        for block in propagating:
            block.propagate = True


def effective_receptive_field(backbone: StagedBackbone, images: Sequence[Tensor], stage: int,
                              cell: Grid, draws: int = 8, carriers: bool = True) -> Tensor:
    """Influence of each input pixel on one map cell.

    The gradient of the cell with respect to each image, as in Luo et al. 2016. They put a gradient
    of 1 on every channel; here each draw puts a random sign on every channel, so that channels do
    not cancel. The mean square over draws is, in expectation, the squared norm of the pixel's
    Jacobian over channels. Its root is averaged over the images.

    Args:
        backbone: A FasterViT in evaluation mode. Its weights get no gradient.
        images: Of one size, each (1, C, H, W), as the network takes it.
        stage: 1 to 4; the map is the stage's own, before the output norm.
        cell: Row and column on that map.
        draws: Random signs for each image. Default 8.
        carriers: False to cut their influence (:func:`carriers_cut`). Default True.

    Returns:
        (H, W), not normalised, so that fields of one network can be compared.

    Raises:
        ValueError: For a stage or cell that the backbone does not have, for images of several
            sizes, and as in :func:`~fastervit_mm.insight.attention_at`.
    """
    if not 1 <= stage <= len(backbone.stages):
        raise ValueError(f'stage={stage}: this backbone has stages 1 to {len(backbone.stages)}')
    if draws < 1:
        raise ValueError(f'draws={draws}: give at least 1')
    sizes = {tuple(image.shape[2:]) for image in images}
    if len(sizes) != 1:
        raise ValueError(f'images of {sorted(sizes)} pixels: give one or more, all of one size')
    if not carriers:
        with carriers_cut(backbone):
            return effective_receptive_field(backbone, images, stage, cell, draws)
    total = 0
    for image in images:
        check_inputs(backbone, image)
        total = total + _field(backbone, image, stage, cell, draws)
    return total / len(images)


def _field(backbone: StagedBackbone, image: Tensor, stage: int, cell: Grid, draws: int) -> Tensor:
    maps: List[Tensor] = []
    hook = backbone.stages[stage - 1].register_forward_hook(lambda m, a, out: maps.append(out))
    image = image.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            backbone(image)
    finally:
        hook.remove()
    height, width = maps[0].shape[2:]
    row, column = cell
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(f'cell={cell}: the map of stage {stage} has {height} x {width} cells, '
                         'rows and columns from 0')
    values = maps[0][0, :, row, column]
    generator = torch.Generator().manual_seed(0)  # the same signs with carriers and without
    squares = 0
    for draw in range(draws):
        signs = torch.randint(0, 2, values.shape, generator=generator) * 2 - 1
        gradient, = torch.autograd.grad(values, image, signs.to(values),
                                        retain_graph=draw + 1 < draws)
        squares = squares + gradient[0].square().sum(0)
    return (squares / draws).sqrt()


def reach(backbone: StagedBackbone, size: Sequence[int], stage: int, cell: Grid) -> Reach:
    """Pixels that affect a cell through convolutions and windows alone.

    Args:
        backbone: A FasterViT.
        size: Height and width of its input, in pixels.
        stage: 1 to 4.
        cell: Row and column on the stage's map.
    """
    return Reach(*(n for axis in (0, 1)
                   for n in _reach_along(backbone, size[axis], stage, cell[axis])))


def _reach_along(backbone: StagedBackbone, size: int, stage: int, cell: int):
    lengths = [size]  # of the image, the map after the stem's first convolution, the stages' maps
    for _ in range(stage + 1):
        lengths.append(-(-lengths[-1] // 2))
    first = last = cell
    # FasterViT's strided convolutions overlap by a cell, Swin's do not.
    overlap = int(not isinstance(backbone, SwinHAT))

    def through_convolution(stride: int, length: int) -> None:
        nonlocal first, last
        first = max(stride * first - overlap, 0)
        last = min(stride * last + 1, length - 1)

    for number in range(stage - 1, -1, -1):
        part, length = backbone.stages[number], lengths[number + 2]
        if isinstance(part, ConvStage):
            for _ in range(2 * len(part.blocks)):
                through_convolution(1, length)
        else:
            k = part.window_size
            first, last = first // k * k, min(last // k * k + k, length) - 1
        through_convolution(2, lengths[number + 1])  # downsampling, or the stem's conv2
    through_convolution(2, size)
    return first, last + 1
