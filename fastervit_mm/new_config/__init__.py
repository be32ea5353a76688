"""A first config for somebody's own data, with sizes and schedule chosen from the data."""
import os
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from rich.console import Console
from rich.table import Table

from ..datasets.boxes import BoxData, find_boxes
from ..datasets.checking import (
    CheckedLabelMaps,
    Problem,
    check_content,
    images_in_both,
    print_problems,
    reading,
    table_of_labels,
)
from ..datasets.checking.label_maps import ReadSplit, check_split, labels_lacking, read_split
from ..datasets.checking.problems import short_name
from ..datasets.label_maps import MapData, find_label_maps
from ..datasets.labels import VOID
from .det import det_config
from .labels import Labels, choose_labels
from .lines import SMALL, write_config
from .seg import seg_config

_SHOWN = 30  # rows of a table of classes


@dataclass
class Report:
    """What was found and decided.

    Attributes:
        task: ``'det'`` or ``'seg'``.
        out: The config.
        table: The classes, by split.
        decisions: What was decided, one sentence each.
        problems: What is wrong with the data, and notes, as (kind, where).
    """
    task: str
    out: Path
    table: Table
    decisions: List[str]
    problems: List[Problem]

    def show(self, console: Console, tools: Path) -> bool:
        """Print it, with the commands that follow.

        Args:
            console: Where to.
            tools: The folder of this package's tools, for the commands.

        Returns:
            Whether the data are without problems; notes are none.
        """
        console.print(self.table)
        sound = print_problems(self.problems, console)
        for decision in self.decisions:
            console.print(f'- {decision}', highlight=False, soft_wrap=True)
        console.print(f'\n[bold]{self.out}[/bold] is written; read its comments, then:',
                      highlight=False, soft_wrap=True)
        for command in self._commands(tools):
            console.print(f'  {command}', highlight=False, soft_wrap=True, markup=False)
        if not sound:
            console.print('[red]Correct the problems above first: training may stop at them.[/red]')
        return sound

    def _commands(self, tools: Path) -> List[str]:
        config, work_dir = shlex.quote(str(self.out)), f'work_dirs/{shlex.quote(self.out.stem)}'
        best = 'best_coco_bbox_mAP_epoch_*' if self.task == 'det' else 'best_mIoU_iter_*'
        place = os.path.relpath(tools)
        tools = shlex.quote(str(tools) if place.startswith('..') else place)
        return [f'python {tools}/browse_dataset.py {config} --out {work_dir}/fed',
                f'python {tools}/train.py {config}',
                f'python {tools}/test.py {config} {work_dir}/{best}.pth --show-dir '
                f'{work_dir}/shown']


def new_config(task: str, data: Path, out: Path, classes: Sequence[str] = (), arch: str = SMALL,
               boxes_only: bool = False, ann_files: Sequence[Path] = (), void: Optional[int] = None,
               label_maps: Sequence[Path] = (), images: Sequence[Path] = (),
               img_suffix: Optional[str] = None, map_suffix: Optional[str] = None,
               force: bool = False, console: Optional[Console] = None) -> Report:
    """Look at a folder of data, check it and write a config that trains on it.

    Args:
        task: ``'det'`` or ``'seg'``.
        data: Folder of images and annotations; nothing in it is changed.
        out: The config to write. What else has to be written goes to ``<its name>_data/`` beside
            it.
        classes, arch, boxes_only: As in :func:`fastervit_mm.new_config.det.det_config`.
        ann_files: As in :func:`fastervit_mm.datasets.boxes.find_boxes`.
        void: As in :func:`fastervit_mm.new_config.labels.choose_labels`.
        label_maps, images, img_suffix, map_suffix: As in
            :func:`fastervit_mm.datasets.label_maps.find_label_maps`.
        force: Replace a config that exists. Default False.
        console: Where progress is shown. Default the terminal.

    Raises:
        DataError: For data from which no config can be made.
        FileExistsError: For a config that exists.
        ValueError: For another argument that is wrong.
    """
    if out.suffix != '.py':
        raise ValueError(f'out={str(out)!r}: a config is a Python file; give a name that ends in '
                         '.py')
    if out.exists() and not force:
        raise FileExistsError(f'out={str(out)!r}: exists already; --force replaces it')
    data = Path(os.path.abspath(data))
    out.parent.mkdir(parents=True, exist_ok=True)
    with reading(console or Console()) as run:
        if task == 'det':
            boxes = find_boxes(data, ann_files, run)
            made = det_config(boxes, data, out.absolute(), classes, arch, boxes_only, run)
            table = _table_of_boxes(boxes, data)
        else:
            maps = find_label_maps(data, label_maps, images, img_suffix, map_suffix)
            reads = {name: read_split(split, name, run) for name, split in maps.splits.items()}
            labels = choose_labels(reads, data, classes, void)
            *made, copied = seg_config(maps, reads, labels, data, out.absolute(), arch, run)
            problems, checked = _check_maps(maps, reads, labels, copied, run)
            names = {i + labels.first: name for i, name in enumerate(labels.names)}
            table = table_of_labels(checked, {VOID, labels.first - 1}, names,
                                    title=f'Label maps in {data}')
        text, decisions, meant = made
        write_config(out, text, meant)
        if task == 'det':
            problems = _check_boxes(boxes, run)
    return Report(task, out, table, decisions, problems)


def _check_boxes(data: BoxData, run) -> List[Problem]:
    problems, files = [], []
    for split in data.splits.values():
        checked = check_content(split.content, split.images, short_name(split.source, 2), run)
        problems += split.problems + checked.problems
        files.append(checked.files)
    problems += images_in_both(files, run)
    # A validation split taken from the training images leaves the others unlisted, in their folder.
    shared = len({split.images for split in data.splits.values()}) < len(data.splits)
    return [p for p in problems if not (shared and p[0] == 'not annotated')]


def _check_maps(data: MapData, reads: Dict[str, ReadSplit], labels: Labels, copied: bool, run
                ) -> Tuple[List[Problem], List[Tuple[str, CheckedLabelMaps]]]:
    folders = {label_map.parent for _, label_map in data.splits['train'].pairs}
    checked = [(split, check_split(
        read, void=VOID, reduce_zero_label=labels.first == 1, numbers=labels.numbers, copied=copied,
        # Of a folder of several splits, one need not have every label.
        whole=split == 'train' or folders.isdisjoint(path.parent for _, path in read.split.pairs)))
        for split, read in reads.items()]
    problems = [problem for _, one in checked for problem in one.problems]
    problems += labels_lacking(checked)
    problems += images_in_both([one.files for _, one in checked], run)
    return problems, checked


def _table_of_boxes(data: BoxData, root: Path) -> Table:
    table = Table(title=f'{data.form} data in {root}', title_justify='left')
    table.add_column('')
    for split in data.splits:
        table.add_column(split, justify='right')
    table.add_row('images', *(str(len(s.content['images'])) for s in data.splits.values()),
                  end_section=True)
    counts = [Counter(name for name, *_ in data.objects(split)) for split in data.splits]
    names = [name for name in data.categories if any(of[name] for of in counts)]
    for name in names[:_SHOWN]:
        table.add_row(name, *(str(of[name]) for of in counts))
    if len(names) > _SHOWN:
        table.add_row(f'and {len(names) - _SHOWN} more',
                      *(str(sum(of[n] for n in names[_SHOWN:])) for of in counts))
    return table
