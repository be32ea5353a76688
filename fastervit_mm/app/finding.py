"""Trained checkpoints and their configs, and exported files."""
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Union

from ..weights.addresses import SCHEME


class Trained(NamedTuple):
    """Checkpoint with its config, or exported file.

    Attributes:
        name: Name on the page.
        config: Path; None for an exported file.
        checkpoint: Path, or a ``fastervit://`` name.
    """
    name: str
    config: Optional[Path]
    checkpoint: Union[Path, str]


def pairs(files: Sequence[Union[str, Path]]) -> List[Trained]:
    """Pair files in the order config, checkpoint, config, checkpoint; one of ONNX stands alone.

    Raises:
        ValueError: For an odd number of other files.
        FileNotFoundError: For a file that does not exist.
    """
    alone = [file for file in files if str(file).endswith('.onnx')]
    files = [file for file in files if file not in alone]
    if len(files) % 2:
        raise ValueError(f'files={list(map(str, files))}: give a checkpoint for every config, as '
                         'CONFIG CHECKPOINT CONFIG CHECKPOINT')
    for file in [*files, *alone]:
        if not _published(file) and not Path(file).is_file():
            raise FileNotFoundError(f'files: {str(file)!r}: no such file ({Path(file).absolute()})')
    return [Trained(f'{Path(config).stem} ({Path(checkpoint).name})', Path(config),
                    str(checkpoint) if _published(checkpoint) else Path(checkpoint))
            for config, checkpoint in zip(files[::2], files[1::2])] + [
                Trained(Path(file).name, None, Path(file)) for file in alone]


def _published(file: Union[str, Path]) -> bool:
    return str(file).startswith(SCHEME)


def find_trained(folder: Union[str, Path]) -> List[Trained]:
    """Find runs below a folder, with best or last checkpoint.

    Args:
        folder: Such as ``work_dirs``; a run's own folder too.

    Raises:
        FileNotFoundError: For a folder that does not exist, or has no run with a checkpoint.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'folder={str(folder)!r}: no such folder ({folder.absolute()}). '
                                'Train something (make demo), or give CONFIG CHECKPOINT')
    found = []
    for config in sorted(folder.rglob('*.py')):
        checkpoint = _checkpoint_of(config.parent)
        if checkpoint is not None:
            name = config.parent.relative_to(folder).as_posix()
            name = config.stem if name == '.' else name
            found.append(Trained(f'{name} ({checkpoint.name})', config, checkpoint))
    if not found:
        raise FileNotFoundError(f'folder={str(folder)!r}: no run below it has both its config '
                                '(*.py) and a checkpoint (*.pth, *.safetensors) beside it')
    return found


def _checkpoint_of(run: Path) -> Optional[Path]:
    by_age = sorted([*run.glob('*.pth'), *run.glob('*.safetensors')],
                    key=lambda path: path.stat().st_mtime)
    best = [path for path in by_age if path.name.startswith('best_')]
    # The path in last_checkpoint may be another machine's.
    noted = run / 'last_checkpoint'
    last = run / Path(noted.read_text().strip()).name if noted.is_file() else None
    if best:
        return best[-1]
    if last is not None and last.is_file():
        return last
    return by_age[-1] if by_age else None
