"""Reading checkpoint files without running code in them."""
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any, Dict, Mapping
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_local_rank, get_world_size
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from .addresses import SCHEME, resolve
from .keys import translate


class CheckpointError(RuntimeError):
    """A checkpoint file that cannot be used; the message says why and what to do."""


def fetch(checkpoint: str) -> str:
    """The local path of a path, a URL or a ``fastervit://`` name, downloaded if necessary.

    Downloads go to torch hub's folder, ``$TORCH_HOME/hub/checkpoints``, as mmengine's do; in a
    distributed job one process of each machine downloads.

    Raises:
        FileNotFoundError: For a path without a file.
        CheckpointError: For a download that failed.
    """
    address = resolve(str(checkpoint))
    if not address.startswith(('http://', 'https://')):
        path = os.path.expanduser(address)
        if not os.path.isfile(path):
            raise FileNotFoundError(f'checkpoint={checkpoint!r}: no such file '
                                    f'({os.path.abspath(path)})')
        return path
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    path = folder / os.path.basename(urlparse(address).path)
    if not path.exists() and get_local_rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(address, str(path))
        except OSError as error:
            raise CheckpointError(
                f'checkpoint={checkpoint!r}: {address} could not be downloaded ({error}). '
                f'Download it elsewhere and put it at {path}') from error
    if get_world_size() > 1:
        barrier()
    return str(path)


def read_checkpoint(checkpoint: str, map_location: Any = 'cpu', mapped: bool = False) -> Any:
    """The content of a checkpoint file, read with ``weights_only=True``.

    Args:
        checkpoint: Path, URL or ``fastervit://`` name.
        map_location: Argument of :func:`torch.load`. Default the CPU.
        mapped: Map the file into memory, so that tensors are read when they are used, and the
            optimizer state of a training checkpoint never is. For callers that copy the tensors at
            once: a mapped tensor becomes invalid if its file is overwritten. Default False.

    Raises:
        FileNotFoundError: For a path without a file.
        CheckpointError: For a file that is truncated, is not a PyTorch file, or contains code.
    """
    path = fetch(checkpoint)
    try:
        # torch maps only files in its current format, a zip archive, and only to the CPU.
        mapped = mapped and map_location == 'cpu' and zipfile.is_zipfile(path)
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        # torch's own message advises weights_only=False, which would run the code.
        reason = str(error).split('WeightsUnpickler error: ')[-1].split('\n')[0].strip()
        raise CheckpointError(
            f'checkpoint={checkpoint!r}: refused, and no code in it was run. The file contains '
            f'more than tensors and plain values, or is not a checkpoint: {reason}. Take the file '
            'from its original source, or save its tensors alone where it was made: '
            'torch.save(model.state_dict(), path)') from None
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f'checkpoint={checkpoint!r}: truncated or not a PyTorch checkpoint '
            f'({os.path.getsize(path)} bytes at {path}; {_first_line(error)}). Delete it and '
            'download or copy it again') from error


def tensors_of(content: Any, checkpoint: str) -> Dict[str, Tensor]:
    """The named tensors in what :func:`read_checkpoint` returned.

    Raises:
        CheckpointError: If there are none.
    """
    if isinstance(content, Mapping):
        for entry in ('state_dict', 'model'):
            if isinstance(content.get(entry), Mapping):
                content = content[entry]
                break
        tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)}
        if tensors:
            return tensors
        found = f'a dict with {list(content)[:8]}'
    else:
        found = f'a {type(content).__name__}'
    raise CheckpointError(f'checkpoint={checkpoint!r}: contains no named tensors, but {found}. '
                          'Expected a state dict, or a dict with one under "state_dict"')


@CheckpointLoader.register_scheme(prefixes=SCHEME, force=True)
def load_from_fastervit(filename: str, map_location: Any = None) -> dict:
    """mmengine's loader for ``fastervit://`` names: the backbone's tensors under its own names."""
    content = read_checkpoint(filename, map_location or 'cpu')
    return dict(state_dict=translate(tensors_of(content, filename)))


@CheckpointLoader.register_scheme(prefixes=('', 'http://', 'https://'), force=True)
def load_from_file(filename: str, map_location: Any = None) -> Any:
    """mmengine's loader for paths and URLs, with ``weights_only=True`` on every torch.

    mmengine 0.10.7 uses torch's default for paths, and ``weights_only=False`` for downloads.
    """
    return read_checkpoint(filename, map_location)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split('\n')[0]
