"""Printed check of a user's data (``tools/prepare_data.py check``)."""
import os
from itertools import combinations
from pathlib import Path
from typing import Any, List, Mapping, Optional, Sequence, Set, Tuple, Union

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..labels import VOID
from .annotations import CheckedAnnotations, check_annotations
from .images import images_in_both
from .label_maps import CheckedLabelMaps, check_label_maps, recoloured
from .problems import Problem, Run, is_note, print_problems, reading, short_name, without_shared


def print_annotations(ann: Sequence[str], images: Sequence[str],
                      console: Optional[Console] = None) -> bool:
    """Check annotation files and print content and problems.

    Args:
        ann: Annotation files, such as of training and validation.
        images: Image folder of each.
        console: Where to print. Default the terminal.

    Returns:
        Whether there is no problem; notes do not count.

    Raises:
        OSError, ValueError: With one line, if files or folders are missing or unpaired.
    """
    pairs, console = _pairs('ann', ann, 'images', images), console or Console()
    with reading(console) as run:
        checked = [check_annotations(*pair, run=run) for pair in pairs]
        problems = annotation_problems(checked, images, run) + _other_categories(ann, checked)
    names = _names(ann)
    table = _table('annotation file', 'images', 'without object', 'annotations', 'masks',
                   'problems')
    for name, one in zip(names, checked):
        table.add_row(escape(name), *map(str, (
            one.images, one.empty, one.annotations, one.masks, _serious(one.problems))))
    console.print(table)
    console.print(table_of_categories(list(zip(names, checked))))
    return print_problems(problems, console)


def print_label_maps(label_maps: Sequence[str], images: Sequence[str],
                     console: Optional[Console] = None, **settings) -> bool:
    """Check folders of label maps and print content and problems.

    Args:
        label_maps: Folders of label maps, such as of training and validation.
        images: Image folder of each.
        console: Where to print. Default the terminal.
        **settings: Of :func:`check_label_maps`.

    Returns:
        Whether there is no problem; notes do not count.

    Raises:
        OSError, ValueError: With one line, if folders are missing, empty or unpaired.
    """
    pairs, console = _pairs('label-maps', label_maps, 'images', images), console or Console()
    names = _names(label_maps)
    void = {settings.get('void', VOID), 0 if settings.get('reduce_zero_label') else VOID}
    with reading(console) as run:
        checked = [(name, check_label_maps(*pair, run=run, **settings))
                   for name, pair in zip(names, pairs)]
        problems = label_problems(checked, void, run)
    problems = without_shared(problems, 'image without a label map', images)
    problems = without_shared(problems, 'label map without an image', label_maps)
    table = _table('label maps', 'images', 'label maps', 'problems', 'img_suffix',
                   'seg_map_suffix')
    for name, one in checked:
        table.add_row(escape(name), *map(str, (one.images, one.maps, _serious(one.problems))),
                      *(escape(', '.join(dict.fromkeys(ends))) for ends in zip(*one.ends)))
    console.print(table)
    console.print(table_of_labels(checked, void))
    return print_problems(problems, console)


def annotation_problems(checked: Sequence[CheckedAnnotations], images: Sequence[Union[str, Path]],
                        run: Run) -> List[Problem]:
    """Problems of all splits; ``images`` are their folders."""
    problems = [problem for one in checked for problem in one.problems]
    problems += images_in_both([one.files for one in checked], run)
    return without_shared(problems, 'not annotated', images)


def label_problems(checked: Sequence[Tuple[str, CheckedLabelMaps]], void: Set[int], run: Run
                   ) -> List[Problem]:
    """Problems of named splits, the training split first."""
    problems = [problem for _, one in checked for problem in one.problems]
    (first, trained), *others = checked
    known, palette = {found.label for found in trained.labels} | void, dict(trained.palette)
    for name, one in others:
        problems += [('label that training lacks', f'{name}: {found.label} in {found.images} label '
                      f'maps, in none of {first}') for found in one.labels
                     if found.label not in known]
        problems += recoloured(name, {label: c for label, (_, c) in one.palette.items()}, palette)
    return problems + list(images_in_both([one.files for _, one in checked], run))


def table_of_categories(checked: Sequence[Tuple[str, CheckedAnnotations]],
                        title: Optional[str] = None) -> Table:
    """Table of the categories of several splits.

    Args:
        checked: Names and content of the splits.
        title: Title of the table. Default none.
    """
    cells = [{c.name: (str(c.boxes), f'{c.size[0]:.0f} x {c.size[1]:.0f}' if c.size else '')
              for c in one.categories} for _, one in checked]
    return _by_split('category', ('boxes', 'median size'), checked, cells, {
        name: name for found in cells for name in found}, title)


def table_of_labels(checked: Sequence[Tuple[str, CheckedLabelMaps]], void: Set[int],
                    names: Optional[Mapping[int, str]] = None, title: Optional[str] = None
                    ) -> Table:
    """Table of the labels of several splits.

    Args:
        checked: Names and content of the splits.
        void: Labels of no class.
        names: Names of labels. Default none.
        title: Title of the table. Default none.
    """
    cells = [{found.label: (f'{found.share:.2%}', str(found.images)) for found in one.labels}
             for _, one in checked]
    names = {**(names or {}), **dict.fromkeys(void, 'void')}
    return _by_split('label', ('pixels', 'images'), checked, cells, {
        label: f'{label} {names.get(label, "")}' for label in sorted(set().union(*cells))}, title)


def _by_split(first: str, columns: Sequence[str], checked: Sequence, cells: Sequence[Mapping],
              rows: Mapping[Any, str], title: Optional[str]) -> Table:
    """Table with two columns for each split."""
    table = _table(first, *(f'{name}\n{column}' for name, _ in checked for column in columns))
    table.title, table.title_justify = title and escape(title), 'left'
    table.add_row('all', *(cell for _, one in checked for cell in ('', f'{one.images} images')),
                  end_section=True)
    for key, name in rows.items():
        table.add_row(escape(name), *(
            cell for found in cells for cell in found.get(key, ('-', '-'))))
    return table


def _pairs(name: str, first: Sequence[str], other: str, second: Sequence[str]
           ) -> List[Tuple[str, str]]:
    if len(first) != len(second):
        raise ValueError(f'--{name} names {len(first)} and --{other} {len(second)}; give one of '
                         f'--{other} for each of --{name}, in the same order')
    for option, paths in ((name, first), (other, second)):
        what = 'file' if option == 'ann' else 'folder'
        for path in paths:
            if not (os.path.isfile if what == 'file' else os.path.isdir)(path):
                raise FileNotFoundError(f'--{option} {path}: no such {what} '
                                        f'({Path(path).absolute()})')
    return list(zip(first, second))


def _other_categories(ann: Sequence[str], checked: Sequence[CheckedAnnotations]) -> List[Problem]:
    """Differences between categories; mmdet numbers by each file's order."""
    found = {short_name(path, 2): list(dict.fromkeys(c.name for c in one.categories))
             for path, one in zip(ann, checked) if one.categories}
    every = dict.fromkeys(name for names in found.values() for name in names)
    problems = [('category that another file lacks', f'{path}: no {category}')
                for path, names in found.items() for category in sorted(every.keys() - names)]
    for (one, names), (other, others) in combinations(found.items(), 2):
        both = [[n for n in names if n in others], [n for n in others if n in names]]
        if both[0] != both[1]:
            problems.append(('categories in another order', f'{other}: {", ".join(both[1])}; '
                             f'{one}: {", ".join(both[0])}. mmdet numbers labels in the order of '
                             'each file'))
    return problems


def _names(paths: Sequence[str]) -> List[str]:
    """Short, different names for columns."""
    every = ([short_name(Path(path).with_suffix(''), parts) for path in paths] for parts in (1, 2))
    return next((names for names in every if len(set(names)) == len(names)), list(paths))


def _serious(problems: Sequence[Problem]) -> int:
    return sum(not is_note(kind) for kind, _ in problems)


def _table(first: str, *others: str) -> Table:
    table = Table()
    table.add_column(first, overflow='fold')
    for column in others:
        table.add_column(escape(column), justify='right', overflow='fold')
    return table
