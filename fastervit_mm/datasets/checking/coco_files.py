"""Reading COCO files and finding unusable entries."""
import json
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Union

from ..folders import is_finite
from .problems import Content, Problem, short_name

_NUMBER = (int, float)
_ID = (str, int, float)
# For each list: keys needed to check an entry, and keys without which mmdet or pycocotools fail:
# area in training, iscrowd in the first evaluation.
_KEYS = dict(
    images=(dict(id=_ID, file_name=str), dict(width=_NUMBER, height=_NUMBER)),
    categories=(dict(id=_ID, name=str), {}),
    annotations=(dict(id=_ID, image_id=_ID, category_id=_ID, bbox=list),
                 dict(area=_NUMBER, iscrowd=_NUMBER)))
_SINGULAR = dict(images='image', categories='category', annotations='annotation')


class ReadAnnotations(NamedTuple):
    """Content of an annotation file.

    Attributes:
        content: The usable entries, without wrong values.
        problems: All problems.
        unusable: Problems for which an entry is left out of ``content``.
        encoding: Python's name of it; mmdet reads only ``'utf-8'``.
    """
    content: Content
    problems: List[Problem]
    unusable: List[Problem]
    encoding: str = 'utf-8'


def read_annotations(ann_file: Union[str, Path]) -> ReadAnnotations:
    """Read a COCO file and check its entries.

    Raises:
        OSError, ValueError, RecursionError: If it is not a COCO file, with the reason.
    """
    raw = Path(ann_file).read_bytes()
    read = entries_of(json.loads(raw), short_name(ann_file, 2))
    return read._replace(encoding=json.detect_encoding(raw))


def entries_of(content: Any, name: str) -> ReadAnnotations:
    """Check the entries of a file's content.

    Raises:
        ValueError: For content without the lists of COCO files.
    """
    lacks = [k for k in _KEYS if not isinstance(content, dict)
             or not isinstance(content.get(k), list)]
    if lacks:
        raise ValueError(f'no list {", ".join(lacks)}; a COCO file has the lists '
                         f'{", ".join(_KEYS)}')
    kept: Content = {}
    problems: List[Problem] = []
    unusable: List[Problem] = []
    for part, (needed, _) in _KEYS.items():
        kept[part] = []
        for number, entry in enumerate(content[part]):
            wrong = _faults(entry, part, number, name)
            problems += wrong.values()
            if isinstance(entry, dict) and not needed.keys() & wrong.keys():
                kept[part].append({k: v for k, v in entry.items() if k not in wrong})
            else:
                unusable += wrong.values()
    return ReadAnnotations(kept, list(dict.fromkeys(problems)), list(dict.fromkeys(unusable)))


def _faults(entry: Any, part: str, number: int, name: str) -> Dict[str, Problem]:
    """Problems of an entry by key; missing keys share one."""
    place, (needed, wanted) = f'{name}: {_SINGULAR[part]}', _KEYS[part]
    if not isinstance(entry, dict):
        return {'': ('malformed entry', f'{place} number {number}: {entry!r:.40}')}
    place += f' {entry["id"]}' if 'id' in entry else f' number {number}'
    absent = [k for k in (*needed, *wanted) if entry.get(k) is None]
    wrong = [k for k, kind in (needed | wanted).items() if k not in absent and not (
        is_finite(entry[k]) or kind is _ID and isinstance(entry[k], str) if kind in (_NUMBER, _ID)
        else isinstance(entry[k], kind))]
    if part == 'annotations' and not {*absent, *wrong} & {'bbox'} and not (
            len(entry['bbox']) == 4 and all(map(is_finite, entry['bbox']))):
        wrong.append('bbox')
    return {**{k: ('keys missing', f'{place}: no {", ".join(absent)}') for k in absent},
            **{k: ('malformed entry', f'{place}: {k}={entry[k]!r:.40}') for k in wrong}}


def wrong_ids(content: Content, name: str) -> Iterator[Problem]:
    """Find ids on which mmdet fails, or pycocotools after training.

    Args:
        content: Content of an annotation file.
        name: The file's name, for messages.
    """
    twice = Counter(annotation['id'] for annotation in content['annotations'])
    for annotation in content['annotations']:
        # pycocotools marks found annotations by id in an array of numbers, where 0 is "not found".
        try:
            number = float(annotation['id'])
        except ValueError:
            yield 'annotation id that is not a number', f'{name}: {annotation["id"]!r}'
            continue
        if number == 0:
            yield ('annotation id 0', f'{name}: annotation 0: the evaluation never counts it as '
                   'found')
        if twice[annotation['id']] > 1:
            twice[annotation['id']] = 0
            yield 'annotation id given twice', f'{name}: {annotation["id"]}'
    for part, key in (('images', 'image_id'), ('categories', 'category_id')):
        ids = {isinstance(i, str): i for entries, k in ((content[part], 'id'), (
            content['annotations'], key)) for i in (entry[k] for entry in entries)}
        if len(ids) > 1:
            yield (f'{_SINGULAR[part]} ids that are numbers and words', f'{name}: such as '
                   f'{ids[False]!r} and {ids[True]!r}')
