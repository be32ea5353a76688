"""What depends on the size of an image and not on its content, kept from one image to the next."""
from typing import Callable, Hashable, List, Optional, Tuple, TypeVar

import torch
from torch import nn

Value = TypeVar('Value')


class Kept(nn.Module):
    """A value that is computed when its key changes and kept for the last key.

    Only the last one is kept, so memory does not grow with the number of sizes. Copies and pickles
    start empty, and so does a network after a cast or a move, which may round its weights.

    CUDA graphs read the memory that was there at their capture. So a value that a capture has read
    stays for as long as the network does, and one that is first needed inside a capture is
    computed in the graph and not kept: no kernel has run yet, and its memory is the graph's.
    """

    def __init__(self):
        super().__init__()
        self._kept: Optional[Tuple[Hashable, object]] = None
        self._captured: List[object] = []

    def forward(self, key: Hashable, device: torch.device, compute: Callable[[], Value]) -> Value:
        """The value.

        Args:
            key: All that the value depends on.
            device: Where it is used.
            compute: Computes it, from weights too if they do not change any more.
        """
        capturing = is_capturing(device)
        if self._kept is None or self._kept[0] != key:
            # Ordinary tensors, even if the first call is in inference mode.
            with torch.inference_mode(False), torch.no_grad():
                if capturing:
                    return compute()
                self._kept = (key, compute())
        value = self._kept[1]
        if capturing and not any(value is captured for captured in self._captured):
            self._captured.append(value)
        return value

    def found(self, key: Hashable) -> Optional[Value]:
        """The value if it is there for a key, else None; it is never computed here."""
        return self._kept[1] if self._kept is not None and self._kept[0] == key else None

    def _apply(self, fn, recurse=True):
        self._forget()
        return super()._apply(fn, recurse)

    def _forget(self) -> None:
        self._kept, self._captured = None, []

    def __getstate__(self):
        return {**self.__dict__, '_kept': None, '_captured': []}


def is_capturing(device: torch.device) -> bool:
    """Whether kernels are recorded for a CUDA graph instead of run."""
    return device.type == 'cuda' and torch.cuda.is_current_stream_capturing()
