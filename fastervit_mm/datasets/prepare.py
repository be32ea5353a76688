"""Preparing COCO, ADE20K or ImageNet, and checking their files."""
import json
import shutil
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple

from rich.console import Console
from rich.table import Table

from . import checking
from .images import read_image
from .label_maps import pair_folders

_UNPACKING = '.unpacking'


@dataclass(frozen=True)
class Archive:
    """A published file.

    Attributes:
        address: Where to download it.
        size: Size of the download, as published.
        parts: Its files and folders, relative to the dataset's folder.
        prefix: Folder in the archive that becomes the dataset's folder.
        into: For a tar file, folder of the dataset to unpack into.
        unless: Folder whose class folders make the archive needless.
    """
    address: str
    size: str
    parts: Tuple[str, ...]
    prefix: str = ''
    into: str = ''
    unless: Optional[str] = None

    @property
    def name(self) -> str:
        return self.address.rsplit('/', 1)[-1]


@dataclass(frozen=True)
class Split:
    """Split with its published counts, None if not published."""
    name: str
    images: str
    num_images: int
    ann_file: Optional[str] = None
    num_annotations: Optional[int] = None
    label_maps: Optional[str] = None
    labels: Optional[str] = None
    per_class: Optional[int] = None


@dataclass(frozen=True)
class DataSet:
    """Published files and layout of a dataset."""
    title: str
    archives: Tuple[Archive, ...]
    splits: Tuple[Split, ...]
    num_classes: int


_COCO = 'http://images.cocodataset.org'
# Counts and sizes from the datasets' own pages; annotations counted in the 2017 files.
DATA_SETS = dict(
    coco=DataSet(
        'COCO 2017',
        (Archive(f'{_COCO}/zips/train2017.zip', '18 GB', ('train2017',)),
         Archive(f'{_COCO}/zips/val2017.zip', '778 MB', ('val2017',)),
         Archive(f'{_COCO}/annotations/annotations_trainval2017.zip', '241 MB',
                 ('annotations/instances_train2017.json', 'annotations/instances_val2017.json'))),
        (Split('train2017', 'train2017', 118287, 'annotations/instances_train2017.json', 860001),
         Split('val2017', 'val2017', 5000, 'annotations/instances_val2017.json', 36781)),
        80),
    ade20k=DataSet(
        'ADE20K (scene parsing, 150 classes)',
        (Archive('http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip',
                 '923 MB', ('images/training', 'images/validation', 'annotations/training',
                            'annotations/validation'), 'ADEChallengeData2016/'),),
        (Split('training', 'images/training', 20210, label_maps='annotations/training'),
         Split('validation', 'images/validation', 2000, label_maps='annotations/validation')),
        150),
    imagenet=DataSet(
        'ImageNet-1K, the images for validation',
        (Archive('https://image-net.org/data/ILSVRC/2012/ILSVRC2012_img_val.tar', '6.3 GB',
                 ('val',), into='val'),
         # Numbers of the classes as in networks; ImageNet's own kit has another order.
         Archive('http://dl.caffe.berkeleyvision.org/caffe_ilsvrc12.tar.gz', '17 MB',
                 ('meta/val.txt',), into='meta', unless='val')),
        (Split('val', 'val', 50000, labels='meta/val.txt', per_class=50),),
        1000))


def prepare(name: str, root: str, check: bool = False, console: Optional[Console] = None) -> bool:
    """Unpack and check a dataset, or say what is missing.

    COCO, ADE20K and ImageNet are not downloaded, because users have to accept their terms.

    Args:
        name: A key of :data:`DATA_SETS`.
        root: A config's ``data_root``; downloads may be in it or beside it.
        check: Also read every image, annotation and label map.
        console: Where to print. Default the terminal.

    Returns:
        Whether the dataset is complete and, if checked, without problems.
    """
    data, folder, console = DATA_SETS[name], Path(root), console or Console()
    shutil.rmtree(folder / _UNPACKING, ignore_errors=True)  # a stopped run's
    missing = [archive for archive in data.archives
               if not _there(archive, folder) and not _unpack(archive, folder, console)]
    if missing:
        _say_how(data, missing, folder, console)
        return False
    console.print(f'{data.title} is in {folder}.' + (
        '' if check else ' Its files were not read; --check reads them all.'))
    return _check(data, folder, console) if check else True


def _there(archive: Archive, folder: Path) -> bool:
    if archive.unless and any(p.is_dir() for p in (folder / archive.unless).glob('*')):
        return True
    return all(_filled(folder / part) for part in archive.parts)


def _filled(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _unpack(archive: Archive, folder: Path, console: Console) -> bool:
    """Unpack missing parts of a download, each atomically."""
    path = next((place / archive.name for place in (folder, folder.parent)
                 if (place / archive.name).is_file()), None)
    if path is None:
        return False
    wanted = [p for p in archive.parts if not _filled(folder / p)]
    building = folder / _UNPACKING
    try:
        with console.status(f'Unpacking {archive.name}'):
            shutil.unpack_archive(path, building / archive.into, **(
                {} if path.suffix == '.zip' else dict(filter='data')))  # keeps files inside
        absent = [p for p in wanted if not (building / (archive.prefix + p)).exists()]
        if absent:
            console.print(f'[red]{path} contains no {", ".join(absent)}.[/red] Is it the file '
                          f'of {archive.address}?')
            return False
        for part in wanted:
            target = folder / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                target.rmdir()
            (building / (archive.prefix + part)).rename(target)
    except (shutil.ReadError, zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        console.print(
            f'[red]{path} is truncated or damaged[/red] ({path.stat().st_size / 1e6:.0f} MB here, '
            f'{archive.size} published; {error}). "curl -C - -o {path} {archive.address}" '
            'continues an interrupted download; delete a damaged file first')
        return False
    finally:
        shutil.rmtree(building, ignore_errors=True)
    console.print(f'Unpacked {", ".join(wanted)} from {path}, which can be deleted.')
    return True


def _say_how(data: DataSet, missing: Sequence[Archive], folder: Path, console: Console) -> None:
    table = Table(title=f'{data.title}: missing in {folder}', title_justify='left')
    for column in ('what', 'download', 'size'):
        table.add_column(column, overflow='fold')
    for archive in missing:
        parts = [p for p in archive.parts if not (folder / p).exists()] or archive.parts
        table.add_row('\n'.join(parts), archive.address, archive.size)
    console.print(table)
    console.print(f'Put the files into {folder}/ and run this again to unpack them:', style='bold')
    for archive in missing:
        console.print(f'  curl -L -C - --create-dirs -o {folder / archive.name} {archive.address}',
                      highlight=False, soft_wrap=True)
    console.print('The folder will then contain', highlight=False)
    for split in data.splits:
        console.print(f'  {folder}/{split.images}/  [dim]{split.num_images} images[/dim]',
                      highlight=False, soft_wrap=True)
        console.print(f'  {folder}/{split.ann_file or split.label_maps or split.labels}',
                      highlight=False, soft_wrap=True)


def _check(data: DataSet, folder: Path, console: Console) -> bool:
    """Read all files of a dataset and print their problems."""
    table = Table(title=f'{data.title} in {folder}', title_justify='left')
    table.add_column('split')
    for column in ('images', 'published', 'annotations', 'published', 'problems'):
        table.add_column(column, justify='right')
    everything: List[checking.Problem] = []
    with checking.reading(console) as run:
        for split in data.splits:
            images, annotations, problems = _check_split(data, split, folder, run)
            everything += problems
            serious = sum(not checking.is_note(kind) for kind, _ in problems)
            table.add_row(split.name, *('' if number is None else str(number) for number in (
                images, split.num_images, annotations, split.num_annotations, serious)))
    console.print(table)
    return checking.print_problems(everything, console)


def _check_split(data: DataSet, split: Split, folder: Path, run: Callable
                 ) -> Tuple[int, Optional[int], List[checking.Problem]]:
    """Images, annotations and problems of a split."""
    root = folder / split.images
    files = sorted(p for p in (root.rglob('*') if split.labels else root.iterdir()) if p.is_file())
    problems: List[checking.Problem] = []
    if len(files) != split.num_images:
        problems.append(('number of images differs from the published', f'{split.images}: '
                         f'{len(files)}, published {split.num_images}'))
    if split.label_maps:
        # ADE20K: 0 is "other" and 1 to 150 are classes.
        read = checking.read_split(pair_folders(root, folder / split.label_maps), split.name, run)
        problems += checking.check_split(read, data.num_classes, reduce_zero_label=True,
                                         whole=False).problems
        sizes = {path.relative_to(root).as_posix(): image.size
                 for (path, _), image in zip(read.split.pairs, read.images)}
    else:
        sizes = {f.relative_to(root).as_posix(): image.size for f, image in zip(
            files, run(read_image, [(str(f),) for f in files], f'{split.name}: images'))}
        problems += [('unreadable image', f'{split.images}/{name}: {size}')
                     for name, size in sizes.items() if isinstance(size, str)]
    annotations = None
    if split.ann_file:
        try:
            content = json.loads((folder / split.ann_file).read_text())
            annotations = len(content['annotations'])
            problems += checking.check_coco(content, sizes, split.ann_file, data.num_classes)
        except (ValueError, KeyError, TypeError) as error:
            problems.append(('unreadable annotation file',
                             f'{split.ann_file}: {type(error).__name__}: {error}'))
        if split.num_annotations not in (None, annotations):
            problems.append(('number of annotations differs from the published',
                             f'{split.ann_file}: {annotations}, published '
                             f'{split.num_annotations}'))
    if split.labels:
        listed = folder / split.labels
        problems += checking.check_class_list(
            listed, list(sizes), data.num_classes, split.per_class) if listed.is_file() else (
            checking.check_class_folders(list(sizes), split.per_class))
    return len(files), annotations, problems
