"""A demo's folder: resuming a stopped demo, replacing a finished."""
import json
from pathlib import Path
from typing import Dict

from rich.console import Console

from fastervit_mm.engine.checkpoints import remove, whole_file

_FACTS = 'demo.json'  # a demo's settings and, once finished, its results


def begin(folder: Path, settings: str, console: Console) -> bool:
    """Prepare a folder for a demo.

    A finished demo is kept beside it, as ``<folder>.previous``, until :func:`finish`.

    Args:
        folder: An earlier demo's, or empty or absent.
        settings: Settings of this demo. A stopped demo with other settings is removed.
        console: Where to report what happens to an earlier demo.

    Returns:
        Whether to resume what is in the folder.

    Raises:
        ValueError: For a folder that holds something else.
    """
    facts, before = folder / _FACTS, _previous(folder)
    if facts.is_file():
        earlier = json.loads(facts.read_text() or '{}')
        if earlier == dict(settings=settings):
            _say(console, f'Going on with the demo that was stopped in {folder}; remove the folder '
                 'to start anew')
            return True
        if 'metrics' in earlier:
            _remove(before)
            folder.rename(before)
            _say(console, f'The earlier demo is kept in {before} until this one is whole')
        else:
            _remove(folder)
            _say(console, f'The demo that was stopped in {folder} had another config: this one '
                 'starts anew')
    elif folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f'work_dir={str(folder)!r}: holds files other than a demo\'s; give '
                         'another folder')
    folder.mkdir(parents=True, exist_ok=True)
    facts.write_text(json.dumps(dict(settings=settings)))
    return False


def finish(folder: Path, facts: Dict) -> None:
    """Write a demo's results and remove the earlier demo."""
    with whole_file(folder / _FACTS) as part:
        part.write_text(json.dumps(facts, indent=2))
    _remove(_previous(folder))


def _previous(folder: Path) -> Path:
    return folder.with_name(f'{folder.name}.previous')


def _remove(folder: Path) -> None:
    """Remove a demo's folder, ``_FACTS`` last."""
    if (folder / _FACTS).is_file():
        for path in folder.iterdir():
            if path.name != _FACTS:
                remove(path)
        remove(folder)


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True)
