"""A first config for a user's data."""
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from rich.console import Console
from rich.table import Table

from ..backbone.variants import VARIANTS
from ..config_files import typed
from ..datasets import checking
from ..datasets.boxes import BoxData, find_boxes
from ..datasets.label_maps import find_label_maps
from ..datasets.labels import VOID
from .det import det_config
from .labels import Labels, choose_labels
from .seg import seg_config
from .writing import SMALL, write_config


@dataclass
class Report:
    """Findings about the data and decisions for the config.

    Attributes:
        task: ``'det'`` or ``'seg'``.
        out: The config.
        table: The classes, by split.
        decisions: Decisions, one sentence each.
        problems: Problems of the data and notes, as (kind, where).
    """
    task: str
    out: Path
    table: Table
    decisions: List[str]
    problems: List[checking.Problem]

    def show(self, console: Console) -> bool:
        """Print it, with the next commands.

        Args:
            console: Where to print.

        Returns:
            Whether the data are without problems; notes do not count.
        """
        console.print(self.table)
        sound = checking.print_problems(self.problems, console)
        for decision in self.decisions:
            console.print(f'- {decision}', highlight=False, soft_wrap=True)
        console.print(f'\n[bold]{self.out}[/bold] is written; read its comments, then:',
                      highlight=False, soft_wrap=True)
        for command in self._commands():
            console.print(f'  {command}', highlight=False, soft_wrap=True, markup=False)
        if not sound:
            console.print('[red]Correct the problems above first: training may stop at them.[/red]')
        return sound

    def _commands(self) -> List[str]:
        config, work_dir = shlex.quote(str(self.out)), f'work_dirs/{shlex.quote(self.out.stem)}'
        best = 'best_coco_bbox_mAP_epoch_*' if self.task == 'det' else 'best_mIoU_iter_*'
        return [f'{typed("browse_dataset.py")} {config} --out {work_dir}/fed',
                f'{typed("train.py")} {config}',
                f'{typed("test.py")} {config} {work_dir}/{best}.pth --show-dir '
                f'{work_dir}/shown']


def new_config(task: str, data: Path, out: Path, classes: Sequence[str] = (), arch: str = SMALL,
               boxes_only: bool = False, balanced: bool = False, ann_files: Sequence[Path] = (),
               void: Optional[int] = None,
               label_maps: Sequence[Path] = (), images: Sequence[Path] = (),
               img_suffix: Optional[str] = None, map_suffix: Optional[str] = None,
               force: bool = False, console: Optional[Console] = None) -> Report:
    """Check a folder of data and write its config.

    Args:
        task: ``'det'`` or ``'seg'``.
        data: Folder of images and annotations; nothing in it is changed.
        out: The config to write. Other files go to ``<its name>_data/`` beside it.
        classes, arch, boxes_only, balanced: As in :func:`fastervit_mm.new_config.det.det_config`.
        ann_files: As in :func:`fastervit_mm.datasets.boxes.find_boxes`.
        void: As in :func:`fastervit_mm.new_config.labels.choose_labels`.
        label_maps, images, img_suffix, map_suffix: As in
            :func:`fastervit_mm.datasets.label_maps.find_label_maps`.
        force: Replace a config that exists. Default False.
        console: Where progress is shown. Default the terminal.

    Raises:
        DataError: For data that no config fits.
        FileExistsError: For a config that exists.
        ValueError: For another wrong argument.
    """
    if arch != SMALL and arch not in VARIANTS:
        raise ValueError(f'arch={arch!r}: give {SMALL!r} or a published variant, one of '
                         f'{", ".join(VARIANTS)}')
    if out.suffix != '.py':
        raise ValueError(f'out={str(out)!r}: a config is a Python file; give a name that ends in '
                         '.py')
    if out.exists() and not force:
        raise FileExistsError(f'out={str(out)!r}: exists already; --force replaces it')
    data = Path(os.path.abspath(data))
    out.parent.mkdir(parents=True, exist_ok=True)
    with checking.reading(console or Console()) as run:
        if task == 'det':
            boxes = find_boxes(data, ann_files, run)
            text, decisions, meant = det_config(boxes, data, out.absolute(), classes, arch,
                                                boxes_only, balanced, run)
            checked, problems = _check_boxes(boxes, run)
            table = checking.table_of_categories(checked, f'{boxes.form} data in {data}')
        else:
            maps = find_label_maps(data, label_maps, images, img_suffix, map_suffix)
            reads = {name: checking.read_split(split, name, run)
                     for name, split in maps.splits.items()}
            labels = choose_labels(reads, data, classes, void)
            text, decisions, meant, copied = seg_config(maps, reads, labels, data, out.absolute(),
                                                        arch, run)
            checked = _check_maps(reads, labels, copied)
            no_class = {VOID, labels.first - 1}
            problems = checking.label_problems(checked, no_class, run)
            names = {i + labels.first: name for i, name in enumerate(labels.names)}
            table = checking.table_of_labels(checked, no_class, names,
                                             f'Label maps in {data}')
        write_config(out, text, meant)
    return Report(task, out, table, decisions, problems)


def _check_boxes(data: BoxData, run: checking.Run
                 ) -> Tuple[List[Tuple[str, checking.CheckedAnnotations]], List[checking.Problem]]:
    splits = data.splits.items()
    checked = [(name, checking.check_content(
        split.content, split.images, checking.short_name(split.source, 2), run))
        for name, split in splits]
    return checked, [problem for _, split in splits for problem in split.problems] + (
        checking.annotation_problems([one for _, one in checked],
                                     [split.images for _, split in splits], run))


def _check_maps(reads: Dict[str, checking.ReadSplit], labels: Labels, copied: bool
                ) -> List[Tuple[str, checking.CheckedLabelMaps]]:
    folders = {label_map.parent for _, label_map in reads['train'].split.pairs}
    return [(split, checking.check_split(
        read, void=VOID, reduce_zero_label=labels.first == 1, numbers=labels.numbers, copied=copied,
        # If there are several splits, one need not have every label.
        whole=split == 'train' or folders.isdisjoint(path.parent for _, path in read.split.pairs)))
        for split, read in reads.items()]
