"""Atomic checkpoints."""
import logging
import os
import shutil
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List, Optional, Union

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..weights.reading import CheckpointError, read_checkpoint

PART = '.part'
"""Suffix of a file while it is being written."""

INTERRUPTED = 'interrupted.pth'
"""Checkpoint of a stopped run (:class:`~fastervit_mm.engine.notices.NoticeHook`)."""

_POINTER = 'last_checkpoint'


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file atomically, through the yielded path.

    Args:
        path: The file. It is on the disk after the block.

    Raises:
        OSError: Of the disk. ``path`` is then unchanged, and no part of the new file is left.
    """
    part = path.with_name(path.name + PART)
    try:
        yield part
        with open(part, 'rb+') as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # flushes the new name too
    except OSError:
        pass  # not supported by every file system
    finally:
        os.close(folder)


def files_of(folder: Union[str, Path]) -> List[Path]:
    """Files of a sharded checkpoint by process; else none.
    """
    return sorted(Path(folder).glob('rank*.pth'), key=lambda path: int(path.stem[4:]))


def remove(path: Path) -> None:
    """Remove a checkpoint, file or folder, if it exists."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def point_to(checkpoint: str, work_dir: str) -> None:
    """Name the newest checkpoint in ``last_checkpoint``, which mmengine reads."""
    with whole_file(Path(work_dir) / _POINTER) as part:
        part.write_text(str(checkpoint))


def save_whole(save, folder: str, name: str, work_dir: str) -> None:
    """Save a readable checkpoint atomically.

    Args:
        save: Called with the name of the file to write in ``folder``.
        folder: Folder of the checkpoint.
        name: Name of the file.
        work_dir: Where to look for earlier checkpoints, for the message.

    Raises:
        CheckpointError: For content that :func:`read_checkpoint` refuses.
        OSError: Naming the checkpoint, why it could not be saved, and the last good one.
    """
    path = Path(folder) / name
    try:
        with whole_file(path) as part:
            save(part.name)
            check_readable(part, path)
    except OSError as error:
        last = newest_checkpoint(work_dir)
        raise OSError(error.errno, f'The checkpoint {path} could not be saved: '
                      f'{error.strerror or error}. Training has stopped; ' + (
                          f'the last checkpoint is {last}. Make room and go on with --resume'
                          if last else 'there is no earlier checkpoint')) from error


def check_readable(written: Path, path: Path) -> None:
    """Check that a file can be read, without reading tensors.

    Args:
        written: The file.
        path: Its final path, for the message.

    Raises:
        CheckpointError: Naming the value that cannot be read.
    """
    try:
        read_checkpoint(str(written), mapped=True)
    except CheckpointError as error:
        reason = str(error).partition(': ')[2].partition('. Take')[0]
        raise CheckpointError(f'The checkpoint {path} was not saved, since no tool could read it: '
                              f'{reason}') from error


def damage_of(path: Path) -> Optional[str]:
    """Find damage in a checkpoint; None if it is whole.

    Every record is read and compared with its checksum. Nothing in the file is run.
    """
    if files := files_of(path):
        return next(filter(None, map(damage_of, files)), None)
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
            return broken and f'{broken} in it is damaged'
    except zipfile.BadZipFile:
        return f'cut short or not a checkpoint ({os.path.getsize(path)} bytes)'
    except OSError as error:
        return error.strerror or str(error)


def newest_checkpoint(work_dir: str, finite: bool = False) -> Optional[Path]:
    """Find the newest whole checkpoint of a run.

    The one that ``last_checkpoint`` names or, if that is absent or damaged, the one written last.
    Damaged ones are logged.

    Args:
        work_dir: Of the run.
        finite: Also skip those with a weight that is not finite. Default False.

    Returns:
        None if the run has saved none.

    Raises:
        CheckpointError: If there are checkpoints, and none is whole.
    """
    seen = {}
    for path in _candidates(Path(work_dir)):
        reason = damage_of(path) or (
            'has weights that are not finite' if finite and not _is_finite(path) else None)
        if reason is None:
            for other, why in seen.items():
                print_log(f'The checkpoint {other} is not used: {why}', 'current',
                          level=logging.WARNING)
            return path
        seen[path] = reason
    if seen:
        raise CheckpointError(f'No checkpoint in {work_dir} can be resumed from: ' + '; '.join(
            f'{path.name}: {why}' for path, why in seen.items()))
    return None


def _candidates(folder: Path) -> List[Path]:
    pointer, folders, first = folder / _POINTER, [folder], []
    if pointer.is_file() and (named := pointer.read_text(errors='replace').strip()):
        # The path is relative to where the run was started; the folder may have moved since.
        at = [Path(named), folder / Path(named).name]
        first = [path for path in at if path.is_file() or files_of(path)][:1]
        folders += [path.parent for path in first if path.parent.resolve() != folder.resolve()]
    rest = [path for where in folders if where.is_dir() for path in where.glob('*.pth')
            if path.name.startswith(('epoch_', 'iter_', INTERRUPTED))
            and not any(path.samefile(other) for other in first)]
    return first + sorted(rest, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _is_finite(path: Path) -> bool:
    for file in files_of(path) or [path]:
        weights = read_checkpoint(str(file), mapped=True)['state_dict']
        weights = [w['shard'] if isinstance(w, dict) else w for w in weights.values()]
        if not all(torch.isfinite(w).all() for w in weights if w.is_floating_point()):
            return False
    return True


class _DeferredRemoval:
    """Backend with deferred deletion."""

    def __init__(self, backend: LocalBackend):
        self.backend, self.removed = backend, []

    def remove(self, path: str) -> None:
        self.removed.append(path)

    rmtree = remove

    def __getattr__(self, name: str):
        return getattr(self.backend, name)


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook with atomic checkpoints.

    It writes to a temporary file, flushes it to the disk, renames it, points ``last_checkpoint`` to
    it, and only then removes the old one. mmengine removes first and writes in place. The arguments
    are mmengine's.
    """

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        if is_main_process() and isinstance(self.file_backend, LocalBackend):
            for part in Path(self.out_dir).glob('*.pth' + PART):  # left by a killed run
                remove(part)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        with self._old_ones_kept():
            super()._save_checkpoint_with_step(runner, step, meta)
        if is_main_process():
            remove(Path(self.out_dir) / INTERRUPTED)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        with self._old_ones_kept():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _old_ones_kept(self) -> Iterator[None]:
        backend = self.file_backend
        if not isinstance(backend, LocalBackend):  # not a local disk, or already deferred
            yield
            return
        self.file_backend = later = _DeferredRemoval(backend)
        try:
            yield
        finally:
            self.file_backend = backend
        best = getattr(self, 'best_ckpt_path_dict', {}).values()
        new = {self.last_ckpt, getattr(self, 'best_ckpt_path', None), *best}
        for path in later.removed:
            if path not in new:
                (backend.rmtree if os.path.isdir(path) else backend.remove)(path)
