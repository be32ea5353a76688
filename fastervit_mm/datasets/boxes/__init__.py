"""Boxes and masks in a folder of somebody's own data: COCO, Pascal VOC or YOLO."""
from pathlib import Path
from typing import List, Optional, Sequence

from ..checking.problems import Run, one_by_one
from ..folders import SPLITS, DataError, files_in, share_out
from ..images import IMAGES
from .coco import find_coco
from .data import BoxData, BoxSplit
from .voc import find_voc
from .yolo import find_yolo

__all__ = ['BoxData', 'BoxSplit', 'find_boxes']
_OTHER_FORMS = {  # the ending of their files, and what these hold
    'CVAT': ('.xml', '<annotations>'), 'Open Images': ('.csv', 'ImageID', 'XMin'),
    'LabelMe': ('.json', '"shapes"', '"imagePath"'),
    'Supervisely': ('.json', '"objects"', '"size"')}
_VAL_SHARE = 0.2  # of training images, where there is no validation split


def find_boxes(folder: Path, ann_files: Sequence[Path] = (), run: Run = one_by_one) -> BoxData:
    """Look for boxes and masks below a folder.

    Splits are told by the names of files and folders (``train``, ``val``, ``valid``, ``test``, …),
    for VOC by ``ImageSets/Main`` and for YOLO by its ``data.yaml`` first. Without a validation
    split, a fifth of the training images becomes one.

    Args:
        folder: Annotations and images, in any arrangement.
        ann_files: In place of looking for some: COCO files in the order train, val, test, or YOLO's
            ``data.yaml``.
        run: How images are read, such as by :func:`fastervit_mm.datasets.checking.reading`; by
            default one by one.

    Raises:
        DataError: For a folder that has none of the three, or leaves open what is meant.
    """
    if not folder.is_dir():
        raise DataError(f'data={str(folder)!r}: no such folder ({folder.absolute()})')
    images = files_in(folder, IMAGES)
    if not images:
        raise DataError(f'data={str(folder)!r}: no image is in it')
    rejected: List[str] = []
    of_yolo = bool(ann_files) and ann_files[0].suffix.lower() in ('.yaml', '.yml')
    data = None
    if not of_yolo:
        data = find_coco(folder, images, ann_files, rejected)
        data = data or find_voc(folder, images, run)
    data = data or find_yolo(folder, images, ann_files, run)
    if data is None:
        raise DataError(
            f'data={str(folder)!r}: {len(images)} images, but no boxes. '
            + (_other_form(folder) or 'Looked for: COCO (a .json with images, annotations with '
               'bbox, and categories), Pascal VOC (an .xml for each image), YOLO (a .txt for each '
               'image, in labels/ beside images/ or next to the image)')
            + ''.join(f'; {reason}' for reason in rejected[:3]))
    data.notes += [f'{reason}, and was left out' for reason in rejected[:3]]
    _share_out(data)
    data.splits = {split: data.splits[split] for split in SPLITS if split in data.splits}
    return data


def _other_form(folder: Path) -> Optional[str]:
    """What the data are instead, and what to export."""
    for path in files_in(folder, ['.json', '.xml', '.csv'])[:1000]:
        try:
            text = path.read_text(encoding='utf-8-sig')
        except (ValueError, OSError):
            continue
        for form, (suffix, *words) in _OTHER_FORMS.items():
            if path.suffix.lower() == suffix and all(word in text for word in words):
                return f'{path.relative_to(folder)} is of {form}: export the data as COCO there'
    return None


def _share_out(data: BoxData) -> None:
    """Make a validation split of a fifth of the training images, where there is none."""
    if 'train' not in data.splits:
        raise DataError(f'the {data.form} data have no training split, only '
                        f'{", ".join(map(repr, data.splits))}')
    if 'val' in data.splits:
        return
    whole = data.splits['train']
    names = [i['file_name'] for i in whole.content['images']]
    if len(names) < 2:
        raise DataError(f'{whole.source}: {len(names)} training images, and no validation split: '
                        'too few to take some for one')
    val = max(_VAL_SHARE, 1 / len(names))
    shares = share_out(names, dict(train=1 - val, val=val))
    for split, chosen in shares.items():
        data.splits[split] = whole.part(set(chosen))
    data.splits['train'].problems = whole.problems
    data.notes.append(
        f'no validation split: {len(shares["val"])} of {len(names)} training images, '
        'chosen by the checksum of their names, became one')
