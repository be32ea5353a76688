"""Problems found by checks, and how they are printed."""
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Sequence, Tuple, Union

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

Problem = Tuple[str, str]  # its kind, and where
Content = Dict[str, List[Dict[str, Any]]]  # of an annotation file as COCO has them
# Applies a function to each tuple of arguments; the third argument is a title.
Run = Callable[[Callable, Sequence[Tuple], str], Iterable]
# Kinds that do not harm training, or that only a person can judge.
NOTES = frozenset((
    'no area', 'not annotated',
    'annotation file without any annotation', 'category without any annotation',
    'category that another file lacks', 'annotation id 0', 'box smaller than a pixel',
    'same box twice',
    'image turned by its EXIF tag',
    'palette label map', 'label map that is all void', 'labels start at 1',
    'label that never occurs', 'label that training lacks', 'label of several colours',
))
_SHOWN = 5  # places shown for each kind


def is_note(kind: str) -> bool:
    """Whether a kind is harmless or needs a person's judgement."""
    return kind in NOTES


def short_name(path: Union[str, Path], parts: int) -> str:
    """Last parts of a path, for messages."""
    return str(Path(*Path(path).parts[-parts:]))


def without_shared(problems: Iterable[Problem], kind: str, folders: Sequence[Union[str, Path]]
                   ) -> List[Problem]:
    """Drop a kind of problem if splits share a folder.

    There each split lacks the others' files.
    """
    shared = len({Path(folder).resolve() for folder in folders}) < len(folders)
    return [problem for problem in problems if not (shared and problem[0] == kind)]


def place_of(annotation: Dict[str, Any], ann_file: str) -> str:
    """Place of an annotation, for messages."""
    return annotation.get('from') or f'{ann_file}: annotation {annotation["id"]}'


def one_by_one(function: Callable, work: Sequence[Tuple], title: str) -> Iterable:
    """:data:`Run` without threads or progress."""
    return (function(*arguments) for arguments in work)


@contextmanager
def reading(console: Console) -> Iterator[Run]:
    """Context with a threaded :data:`Run` and a progress bar.

    Threads suffice: Pillow releases Python's lock while decoding.
    """
    with ThreadPoolExecutor() as pool, Progress(console=console, transient=True) as progress:
        def run(function: Callable, work: Sequence[Tuple], title: str) -> Iterable:
            return progress.track(pool.map(function, *zip(*work)) if work else [],
                                  total=len(work), description=escape(title))
        yield run


def print_problems(problems: Iterable[Problem], console: Console) -> bool:
    """Print problems and notes by kind, with their first places.

    Returns:
        Whether there are only notes.
    """
    places_of: Dict[str, List[str]] = defaultdict(list)
    for kind, where in problems:
        places_of[kind].append(where)
    for kind, places in sorted(places_of.items()):
        console.print(f'{"note" if is_note(kind) else "[red]problem[/red]"}: {escape(kind)}: '
                      f'{len(places)}')
        for place in places[:_SHOWN]:
            # A file's text may be unprintable.
            place = place.encode(errors='backslashreplace').decode()
            console.print(f'  {place}', highlight=False, soft_wrap=True, markup=False)
        if len(places) > _SHOWN:
            console.print(f'  and {len(places) - _SHOWN} more', highlight=False)
    serious = sum(len(places) for kind, places in places_of.items() if not is_note(kind))
    console.print(f'[red]{serious} problems.[/red]' if serious else '[green]No problem.[/green]')
    return not serious
