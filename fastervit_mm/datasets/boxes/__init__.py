"""Boxes and masks in a user's folder."""
from pathlib import Path
from typing import List, Optional, Sequence

from ..checking.problems import Run, one_by_one
from ..folders import SPLITS, DataError, files_in, validation_share
from ..images import IMAGES
from .coco import find_coco
from .data import BoxData, BoxSplit
from .voc import find_voc
from .yolo import find_yolo

__all__ = ['BoxData', 'BoxSplit', 'find_boxes']
_OTHER_FORMS = {  # ending and content of their files
    'CVAT': ('.xml', '<annotations>'), 'Open Images': ('.csv', 'ImageID', 'XMin'),
    'LabelMe': ('.json', '"shapes"', '"imagePath"'),
    'Supervisely': ('.json', '"objects"', '"size"')}


def find_boxes(folder: Path, ann_files: Sequence[Path] = (), run: Run = one_by_one) -> BoxData:
    """Find the boxes and masks below a folder.

    Names of files and folders give the splits (``train``, ``val``, ``valid``, ``test``, …); VOC's
    ``ImageSets/Main`` and YOLO's ``data.yaml`` take precedence. Without a validation split, a fifth
    of the training images becomes one.

    Args:
        folder: Annotations and images, in any arrangement.
        ann_files: COCO files in the order train, val, test, or YOLO's ``data.yaml``. Default
            whatever is found.
        run: How images are read, such as :func:`fastervit_mm.datasets.checking.reading`; by
            default one by one.

    Raises:
        DataError: For a folder that has none of the three formats, or is ambiguous.
    """
    if not folder.is_dir():
        raise DataError(f'data={str(folder)!r}: no such folder ({folder.absolute()})')
    images = files_in(folder, IMAGES)
    if not images:
        raise DataError(f'data={str(folder)!r}: no image is in it')
    rejected: List[str] = []
    data = None
    if not (ann_files and ann_files[0].suffix.lower() in ('.yaml', '.yml')):
        data = find_coco(folder, images, ann_files, rejected) or find_voc(folder, images, run)
    data = data or find_yolo(folder, images, ann_files, run)
    if data is None:
        raise DataError(
            f'data={str(folder)!r}: {len(images)} images, but no boxes. '
            + (_other_form(folder) or 'Looked for: COCO (a .json with images, annotations with '
               'bbox, and categories), Pascal VOC (an .xml for each image), YOLO (a .txt for each '
               'image, in labels/ beside images/ or next to the image)')
            + ''.join(f'; {reason}' for reason in rejected[:3]))
    data.notes += [f'{reason}, and was left out' for reason in rejected[:3]]
    if 'train' not in data.splits:
        raise DataError(f'the {data.form} data have no training split, only '
                        f'{", ".join(map(repr, data.splits))}')
    if 'val' not in data.splits:
        whole = data.splits['train']
        names = {image['file_name'] for image in whole.content['images']}
        chosen = validation_share(names, whole.source, data.notes)
        data.splits.update(train=whole.part(names - chosen), val=whole.part(chosen))
        data.splits['train'].problems = whole.problems
    data.splits = {split: data.splits[split] for split in SPLITS if split in data.splits}
    return data


def _other_form(folder: Path) -> Optional[str]:
    """Unsupported format of the data, and advice what to export."""
    for path in files_in(folder, ['.json', '.xml', '.csv'])[:1000]:
        try:
            text = path.read_text(encoding='utf-8-sig')
        except (ValueError, OSError):
            continue
        for form, (suffix, *words) in _OTHER_FORMS.items():
            if path.suffix.lower() == suffix and all(word in text for word in words):
                return f'{path.relative_to(folder)} is in the format of {form}: export COCO there'
    return None
