"""Extracting the tensors of a backbone, a classifier or a DINO detector from a file."""
import os
from typing import Dict, Optional

import torch
from safetensors.torch import save_file
from torch import Tensor

from .addresses import resolve
from .dino import convert_dino, is_official_dino
from .errors import CheckpointError
from .keys import backbone_place, translate, translate_whole
from .loading import NO_FASTERVIT, describe
from .reading import (
    SAFETENSORS,
    entry_and_prefix,
    fetch,
    read_checkpoint,
    tensors_of,
    where_from,
)


def convert(source: str, target: Optional[str] = None, classifier: bool = False,
            prefix: Optional[str] = None) -> str:
    """Write the backbone's tensors of ``source``, under this package's names, to ``target``.

    Of a detector of the official DINO code, all tensors under mmdet's names.

    Args:
        source: Path, URL or ``fastervit://`` name.
        target: File to write: a safetensors file, or one of torch's where its name does not end in
            ``.safetensors``. Default the source's name with that ending, in the current folder.
        classifier: Write the whole classifier of the authors' file, under the names of mmpretrain's
            ``ImageClassifier`` (:func:`~fastervit_mm.weights.translate_whole`). Default False.
        prefix: As that of :func:`~fastervit_mm.weights.load_backbone`. Default: found.

    Returns:
        A line that says what was written.

    Raises:
        FileExistsError: If ``target`` exists; it is not changed.
        CheckpointError: For a source that contains no FasterViT or, for ``classifier``, none; or a
            DINO detector that cannot be converted.
    """
    if target is None:
        name = os.path.basename(resolve(source))
        for ending in ('.tar', '.pth', '.pt', '.bin'):
            name = name.removesuffix(ending)
        target = name.removesuffix(SAFETENSORS) + SAFETENSORS
    if os.path.exists(target):
        raise FileExistsError(f'OUT={target!r}: exists already; give a new name or remove it')
    whole = read_checkpoint(source, mapped=True)
    entry, prefix = entry_and_prefix(whole, prefix)
    content = tensors_of(whole, source, entry)
    kind = place = ''
    if is_official_dino(content):
        content, kind = convert_dino(content, source), 'DINO with '
    else:
        place = where_from(whole, content, entry, backbone_place(content, prefix, source))
    tensors = translate(content, prefix, source)
    looks_like = describe(tensors)
    if looks_like == NO_FASTERVIT:
        raise CheckpointError(f'IN={source!r}: looks like {looks_like}; its first names are '
                              f'{list(tensors)[:4]}')
    if kind:
        tensors = content
    if classifier:
        tensors = translate_whole(content)
        if 'head.fc.weight' not in tensors:
            raise CheckpointError(f'IN={source!r}: holds no classifier (head.weight, norm.weight) '
                                  'beside the backbone; leave --classifier out')
    # A copy of each: torch.save writes the whole storage of a tensor that is a view.
    state_dict = {name: tensor.clone(memory_format=torch.contiguous_format)
                  for name, tensor in tensors.items()}
    partial = f'{target}.partial'
    try:
        _save(state_dict, partial, os.path.basename(source), target.endswith(SAFETENSORS))
        os.replace(partial, target)
    finally:
        if os.path.exists(partial):
            os.remove(partial)
    before, after = (os.path.getsize(path) / 2**20 for path in (fetch(source), target))
    return (f'{target}: {len(state_dict)} tensors of {kind}{looks_like}{place}, {after:.1f} MiB of '
            f'{before:.1f} MiB')


def _save(state_dict: Dict[str, Tensor], path: str, source: str, safetensors: bool) -> None:
    if safetensors:
        save_file(state_dict, path, metadata=dict(format='pt', source=source))
    else:
        torch.save(dict(meta=dict(source=source), state_dict=state_dict), path)
