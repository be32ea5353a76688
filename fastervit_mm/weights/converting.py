"""Extraction of a backbone, classifier or DINO detector."""
import os
from typing import Dict, Mapping, Optional, Tuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from .addresses import resolve
from .dino import convert_dino, is_official_dino
from .errors import CheckpointError
from .finding import backbone_place, translate, translate_whole
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
    """Write a file's backbone under this package's names.

    From a detector of the official DINO code, all tensors are written, under mmdet's names.

    Args:
        source: Path, URL or ``fastervit://`` name.
        target: File to write: safetensors if its name ends in ``.safetensors``, else torch's
            format. Default the source's name with that ending, in the current folder.
        classifier: Write the whole classifier of the authors' file, under the names of mmpretrain's
            ``ImageClassifier`` (:func:`~fastervit_mm.weights.translate_whole`). Default False.
        prefix: As in :func:`~fastervit_mm.weights.load_backbone`. Default: found.

    Returns:
        One line: the file, its tensors and its size.

    Raises:
        FileExistsError: If ``target`` exists; it is not changed.
        CheckpointError: For a source without a FasterViT or, with ``classifier``, without a
            classifier; or a DINO detector that cannot be converted.
    """
    target = target or _default_target(source)
    if os.path.exists(target):
        raise FileExistsError(f'OUT={target!r}: exists already; give a new name or remove it')
    tensors, what = _extracted(source, classifier, prefix)
    save_tensors(tensors, target, source=os.path.basename(source))
    before, after = (os.path.getsize(path) / 2**20 for path in (fetch(source), target))
    return f'{target}: {len(tensors)} tensors of {what}, {after:.1f} MiB of {before:.1f} MiB'


def _default_target(source: str) -> str:
    name = os.path.basename(resolve(source))
    for ending in ('.tar', '.pth', '.pt', '.bin', SAFETENSORS):
        name = name.removesuffix(ending)
    return name + SAFETENSORS


def _extracted(source: str, classifier: bool, prefix: Optional[str]
               ) -> Tuple[Dict[str, Tensor], str]:
    """Tensors to write, and their description."""
    whole = read_checkpoint(source, mapped=True)
    entry, prefix = entry_and_prefix(whole, prefix)
    found = tensors_of(whole, source, entry)
    dino = is_official_dino(found)
    if dino:
        found = convert_dino(found, source)
    tensors = translate(found, prefix, source)
    looks_like = describe(tensors)
    if looks_like == NO_FASTERVIT:
        raise CheckpointError(f'IN={source!r}: looks like {looks_like}; its first names are '
                              f'{list(tensors)[:4]}')
    if classifier:
        tensors = translate_whole(found)
        if 'head.fc.weight' not in tensors:
            raise CheckpointError(f'IN={source!r}: holds no classifier (head.weight, norm.weight) '
                                  'beside the backbone; leave --classifier out')
    if dino:
        return found, f'DINO with {looks_like}'
    return tensors, looks_like + where_from(whole, found, entry,
                                            backbone_place(found, prefix, source))


def save_tensors(tensors: Mapping[str, Tensor], target: str, **meta: str) -> None:
    """Write tensors to a file, atomically.

    Args:
        tensors: By name; shared memory is written once for each name.
        target: As in :func:`convert`.
        **meta: Texts for the header of a safetensors file, or the entry ``meta`` of torch's.
    """
    # Copies, because torch.save writes a view's whole storage.
    state_dict = {name: tensor.clone(memory_format=torch.contiguous_format)
                  for name, tensor in tensors.items()}
    partial = f'{target}.partial'
    try:
        if target.endswith(SAFETENSORS):
            save_file(state_dict, partial, metadata=dict(format='pt', **meta))
        else:
            torch.save(dict(meta=meta, state_dict=state_dict), partial)
        os.replace(partial, target)
    finally:
        if os.path.exists(partial):
            os.remove(partial)
