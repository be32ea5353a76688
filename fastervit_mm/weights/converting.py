"""Extracting the tensors of a backbone, or of a DINO detector, from a training checkpoint."""
import os

import torch

from .dino import convert_dino, is_official_dino
from .errors import CheckpointError
from .keys import translate
from .loading import NO_FASTERVIT, describe
from .reading import fetch, read_checkpoint, tensors_of


def convert(source: str, target: str) -> str:
    """Write the backbone's tensors of ``source``, under this package's names, to ``target``.

    Of a detector of the official DINO code, all tensors under mmdet's names.

    Args:
        source: Path, URL or ``fastervit://`` name.
        target: File to write.

    Returns:
        A line that says what was written.

    Raises:
        FileExistsError: If ``target`` exists; it is not changed.
        CheckpointError: For a source that contains no FasterViT, or a DINO detector that cannot
            be converted.
    """
    if os.path.exists(target):
        raise FileExistsError(f'OUT={target!r}: exists already; give a new name or remove it')
    tensors = tensors_of(read_checkpoint(source, mapped=True), source)
    kind = ''
    if is_official_dino(tensors):
        tensors, kind = convert_dino(tensors, source), 'DINO with '
        looks_like = describe(translate(tensors))
    else:
        tensors = translate(tensors)
        looks_like = describe(tensors)
    if looks_like == NO_FASTERVIT:
        raise CheckpointError(f'IN={source!r}: looks like {looks_like}; its first names are '
                              f'{list(tensors)[:4]}')
    # A copy of each: torch.save writes the whole storage of a tensor that is a view.
    state_dict = {name: tensor.clone() for name, tensor in tensors.items()}
    partial = f'{target}.partial'
    try:
        torch.save(dict(meta=dict(source=os.path.basename(source)), state_dict=state_dict),
                   partial)
        os.replace(partial, target)
    finally:
        if os.path.exists(partial):
            os.remove(partial)
    before, after = (os.path.getsize(path) / 2**20 for path in (fetch(source), target))
    return (f'{target}: {len(state_dict)} tensors of {kind}{looks_like}, {after:.1f} MiB of '
            f'{before:.1f} MiB')
