"""Reading checkpoint files without running their code."""
import json
import os
import pickle
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_local_rank, get_world_size
from mmengine.runner.checkpoint import CheckpointLoader
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from .addresses import DETECTORS, SCHEME, resolve
from .dino import convert_dino, is_official_dino
from .errors import CheckpointError
from .finding import WRAPPERS, is_averaged
from .restricted import load_values

SAFETENSORS = '.safetensors'
DATASET_META = 'dataset_meta'  # classes and palette, in JSON in a safetensors file's header
_USUAL = ('state_dict', 'model', '')  # entries with a file's weights


def fetch(checkpoint: str) -> str:
    """Local file of a path, URL or ``fastervit://`` name.

    Files are downloaded if necessary, to torch hub's folder, ``$TORCH_HOME/hub/checkpoints``, as
    mmengine's are; in a distributed job one process of each machine downloads.

    Raises:
        FileNotFoundError: For a path without a file.
        CheckpointError: For a download that failed.
    """
    address = resolve(str(checkpoint))
    if not address.startswith(('http://', 'https://')):
        path = os.path.expanduser(address)
        if not os.path.isfile(path):
            what = ('the shards of a training; make one file of them with "python '
                    f'tools/gather_checkpoint.py {checkpoint} OUT.pth"'
                    if os.path.isfile(os.path.join(path, 'rank0.pth')) else
                    'a folder; give a file in it' if os.path.isdir(path) else
                    'a link that leads to no file' if os.path.islink(path) else 'no such file')
            raise FileNotFoundError(f'checkpoint={checkpoint!r}: {what} ({os.path.abspath(path)})')
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
    """Read a checkpoint file; no code in it is run.

    A torch file is read with ``weights_only=True``. A safetensors file, recognised by content or
    name, gives its tensors; one of ``tools/share.py`` a dict of ``state_dict`` and ``meta``.

    Args:
        checkpoint: Path, URL or ``fastervit://`` name.
        map_location: Argument of :func:`torch.load`. Default the CPU.
        mapped: Map the file into memory: tensors are read on use, and the optimizer state of a
            training checkpoint never is. For callers that copy the tensors at once, since a mapped
            tensor becomes invalid if its file is overwritten. Default False.

    Raises:
        FileNotFoundError: For a path without a file.
        CheckpointError: For a file that is truncated, is of neither kind, or contains code.
    """
    path = fetch(checkpoint)
    with open(path, 'rb') as file:
        first = file.read(20)
    if path.endswith(SAFETENSORS) or first[8:9] == b'{':  # after the header's length
        return _read_safetensors(path, checkpoint, map_location, mapped)
    try:
        archive = first.startswith(b'PK') and zipfile.is_zipfile(path)
        if archive:
            _check_stored(path, checkpoint)
        return load_values(path, map_location, mapped)
    except (CheckpointError, OSError):
        raise
    except Exception as error:  # noqa: BLE001  the reader of a damaged pickle may raise anything
        size = os.path.getsize(path)
        if first and not first.startswith((b'\x80', b'PK')):
            raise CheckpointError(
                f'checkpoint={checkpoint!r}: not a PyTorch checkpoint: it begins with {first!r} '
                f'({size} bytes at {path}). Delete it and download or copy it again') from None
        if isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(
                f'checkpoint={checkpoint!r}: refused, and no code in it was run. The file contains '
                f'more than tensors and plain values, or is not a checkpoint: {_reason(error)}. '
                'Take the file from its original source, or save its tensors alone where it was '
                'made: torch.save(model.state_dict(), path)') from None
        raise CheckpointError(
            f'checkpoint={checkpoint!r}: truncated or not a PyTorch checkpoint ({size} bytes at '
            f'{path}; {_reason(error)}). Delete it and download or copy it again') from error


def entries(content: Any, name: str = '') -> Dict[str, Dict[str, Tensor]]:
    """State dicts in a file's content, by dotted name.

    Args:
        content: Tensors by name, itself named ``''``, or a dict with such entries.
        name: Name of the content. Default none.

    Returns:
        The usual weights first: ``state_dict``, ``model``, the file itself, others, averaged ones
        (EMA). Without optimizer states.
    """
    found = {}
    if isinstance(content, Mapping):
        named = {key: value for key, value in content.items() if isinstance(key, str)}
        if tensors := {key: value for key, value in named.items() if isinstance(value, Tensor)}:
            found[name] = tensors
        for key, value in named.items():
            if not (key.startswith(('optim', 'message_hub')) or name.endswith('state_dict')):
                found.update(entries(value, f'{name}.{key}'.lstrip('.')))
    return dict(sorted(found.items(), key=lambda entry: (
        is_averaged(entry[0]), _USUAL.index(entry[0]) if entry[0] in _USUAL else len(_USUAL),
        -len(entry[1]))))


def tensors_of(content: Any, checkpoint: str, entry: Optional[str] = None) -> Dict[str, Tensor]:
    """Named tensors in a file's content.

    Args:
        content: Tensors by name, or a dict with such entries.
        checkpoint: The file's name, for messages.
        entry: Name of one of :func:`entries`. Default the first.

    Raises:
        CheckpointError: If there are none, or if they are larger than the file can hold.
    """
    held = entries(content)
    if held:
        tensors = held[next(iter(held)) if entry is None else entry]
        _check_held(tensors, checkpoint)
        return tensors
    found = (f'a dict with {[k for k in content if isinstance(k, str)][:8]}'
             if isinstance(content, Mapping) else f'a {type(content).__name__}')
    raise CheckpointError(f'checkpoint={checkpoint!r}: contains no named tensors, but {found}. '
                          'Expected a state dict, or a dict with one under "state_dict"')


def entry_and_prefix(content: Any, prefix: Optional[str]) -> Tuple[Optional[str], Optional[str]]:
    """Split a prefix into a file's entry and the rest.

    Either is None if absent.

    Args:
        content: Content of the file.
        prefix: Prefix of the wanted names; it may begin with the name of an entry.
    """
    held = entries(content)
    for entry in held:
        if prefix and entry and f'{prefix}.'.startswith(f'{entry}.') and not any(
                name.startswith(prefix) for name in next(iter(held.values()))):
            return entry, prefix[len(entry) + 1:] or None
    return None, prefix


def where_from(content: Any, tensors: Mapping[str, Tensor], entry: Optional[str],
               prefix: str) -> str:
    """Describe what was taken of a file, in brackets.

    Empty if there was no choice.

    Args:
        content: Content of the file.
        tensors: Those taken, by the file's names.
        entry: The requested entry; None for the first of :func:`entries`.
        prefix: Prefix of the names taken.
    """
    held = list(entries(content)) or ['']
    taken = held[0] if entry is None else entry
    averaged = [name for name in held if is_averaged(name)]
    said = [taken] if taken not in _USUAL else []
    if taken in averaged:
        said = [f'averaged weights, {taken}']
    elif 'ema_state_dict' in averaged and 'message_hub' in content:
        said = ['averaged weights, which EMAHook saves as state_dict']
    elif averaged:
        said = [f'not the averaged weights, which are in the file under {averaged[0]}']
    said += [f'below {prefix}'] if prefix not in ('', 'backbone.') else []
    wrappers = sorted({found for name in tensors for found in WRAPPERS.findall(name)})
    said += [f'without {" and ".join(wrappers)}'] if wrappers else []
    return f' ({"; ".join(said)})' if said else ''


def _check_stored(path: str, checkpoint: str) -> None:
    """Refuse a compressed archive, which may unpack to any size."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    size, unpacked = os.path.getsize(path), sum(entry.file_size for entry in entries)
    if unpacked > size or any(e.compress_type != zipfile.ZIP_STORED for e in entries):
        raise CheckpointError(
            f'checkpoint={checkpoint!r}: a compressed archive ({size} bytes, {unpacked} '
            'uncompressed), which torch.save does not write. Take the file from its original '
            'source')


def _read_safetensors(path: str, checkpoint: str, map_location: Any, mapped: bool
                      ) -> Dict[str, Any]:
    try:
        tensors = load_file(path)  # it maps the file
        with safe_open(path, 'pt') as file:
            meta = json.loads((file.metadata() or {}).get(DATASET_META, 'null'))
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  safetensors' own, and torch's for odd types
        reason = str(error).removeprefix('Error while deserializing header: ').split('\n')[0]
        raise CheckpointError(
            f'checkpoint={checkpoint!r}: truncated or not a safetensors file '
            f'({os.path.getsize(path)} bytes at {path}; {reason}). Delete it and download or copy '
            'it again') from error
    if not mapped or str(map_location) != 'cpu':
        tensors = _copied(tensors, map_location)
    return tensors if meta is None else dict(meta={DATASET_META: meta}, state_dict=tensors)


def _copied(tensors: Mapping[str, Tensor], map_location: Any) -> Dict[str, Tensor]:
    """Copy tensors to a device.

    To the CPU for a ``map_location`` that is a function or a dict.
    """
    device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
    return {name: tensor.to(device, copy=True) for name, tensor in tensors.items()}


def _check_held(tensors: Mapping[str, Tensor], checkpoint: str) -> None:
    """Refuse views that expand few numbers to fill the memory."""
    size = os.path.getsize(fetch(checkpoint))
    needed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if needed > 10 * size + 2**26:  # layers that share their weights are saved once
        raise CheckpointError(
            f'checkpoint={checkpoint!r}: its tensors would take {needed / 2**30:.1f} GiB, but the '
            f'file has {size / 2**30:.3f} GiB. Take the file from its original source')


def load_from_fastervit(filename: str, map_location: Any = None) -> dict:
    """mmengine's loader for ``fastervit://`` names.

    Returns all tensors of the file by its own names; a detector's by mmdet's. The backbone renames
    them when it loads them, :func:`~fastervit_mm.models.rename_published` for a whole model.
    """
    # Only the tensors: the file's optimizer state is three times as large.
    content = read_checkpoint(filename, 'cpu', mapped=True)
    tensors = tensors_of(content, filename)
    if filename[len(SCHEME):] in DETECTORS:
        tensors = convert_dino(tensors, filename)
    return dict(state_dict=_copied(tensors, map_location))


def load_from_file(filename: str, map_location: Any = None) -> Any:
    """mmengine's loader for paths and URLs in :func:`strict_loaders`.

    A detector of the official DINO code becomes mmdet's (:func:`~.dino.convert_dino`).
    """
    content = read_checkpoint(filename, mapped=True)
    if isinstance(content, Mapping) and isinstance(content.get('model'), Mapping) and (
            is_official_dino(content['model'])):
        tensors = convert_dino(tensors_of(content, filename), filename)
        return dict(state_dict=_copied(tensors, map_location))
    content = read_checkpoint(filename, map_location)
    if isinstance(content, dict) and isinstance(content.get('meta'), dict):
        content['meta'].pop('config', None)  # older versions wrote it; mmengine's resume runs it
    return content


@contextmanager
def strict_loaders() -> Iterator[None]:
    """Context in which mmengine reads files by :func:`read_checkpoint`.

    For paths mmengine 0.10.7 uses torch's default, which before torch 2.6 runs code in a file, and
    for downloads ``weights_only=False``.
    """
    before = {prefix: CheckpointLoader._schemes[prefix] for prefix in ('', 'http://', 'https://')}
    CheckpointLoader.register_scheme(list(before), load_from_file, force=True)
    try:
        yield
    finally:
        for prefix, loader in before.items():
            CheckpointLoader.register_scheme(prefix, loader, force=True)


def _reason(error: BaseException) -> str:
    """Cause in torch's message, without advice to run the code."""
    text = str(error).rpartition('WeightsUnpickler error: ')[2].rpartition('] . ')[2]
    lines = [line.strip() for line in text.split('\n')]
    return next((line.partition('. ')[0].rstrip('.') for line in lines if line
                 and not line.startswith('Weights only load failed')), type(error).__name__)
