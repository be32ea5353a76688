"""Errors of reading and converting checkpoints."""
from typing import List, Mapping

from torch import Tensor


class CheckpointError(RuntimeError):
    """Unusable checkpoint; the message gives reason and remedy."""


def check_finite(tensors: Mapping[str, Tensor], checkpoint: str) -> None:
    """Raise an error for tensors with non-finite values.

    Args:
        tensors: By name, without buffers that are infinite by design.
        checkpoint: The file's name, for the message.

    Raises:
        CheckpointError: For NaN or infinity in any.
    """
    wrong = [k for k, v in tensors.items() if v.is_floating_point() and not v.isfinite().all()]
    if wrong:
        raise CheckpointError(
            f'checkpoint={checkpoint!r}: NaN or infinity in {len(wrong)} of {len(tensors)} tensors '
            f'({", ".join(wrong[:3])}). The training that wrote it had diverged, or the file is '
            'damaged; take an earlier checkpoint')


def some(names: List[str]) -> str:
    """Shorten a list of names for a message."""
    return ', '.join(names[:3]) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
