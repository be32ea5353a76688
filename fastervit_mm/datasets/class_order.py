"""Which class is which: the names of a dataset's classes in the order of their labels.

mmdet's readers of COCO files number the classes in the order of the file's categories; a list in
the config says which of them are used, and does not reorder them.
"""
import json
import mmap
import os
from pathlib import Path
from typing import Any, List, Mapping, Optional, Sequence, Tuple, Union


def category_names(path: Union[str, Path]) -> List[str]:
    """Category names of a COCO annotation file, in its order; all of it is read only if needed.

    Raises:
        ValueError: For a file that has no list of categories, with the reason.
    """
    decoder = json.JSONDecoder()
    if not os.path.getsize(path):
        raise ValueError('it is empty')
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        at = text.rfind(b'"categories"')
        # COCO's own files end with the categories, and 2 MB after the key hold all of them.
        following = text[at + 12:at + 12 + 2_000_000].decode(errors='replace') if at >= 0 else ''
    try:
        categories = decoder.raw_decode(following.lstrip(' \t\r\n:'))[0]
        return [str(category['name']) for category in categories]
    except (json.JSONDecodeError, TypeError, KeyError):
        content = json.loads(Path(path).read_text(encoding='utf-8-sig'))
    try:
        return [str(category['name']) for category in content['categories']]
    except (TypeError, KeyError):
        raise ValueError('no list of categories, each a dict with a name') from None


def numbered_by_file(kind: Optional[type]) -> bool:
    """Whether a dataset's class numbers its labels as a COCO file lists its categories."""
    loading = getattr(getattr(kind, 'load_data_list', None), '__qualname__', '')
    return loading == 'CocoDataset.load_data_list'


def declared_classes(dataset: Mapping[str, Any], kind: Optional[type]) -> Optional[Tuple[str, ...]]:
    """The classes that a dataset's settings name, or else its class; None for neither.

    Args:
        dataset: Settings of a dataset, without wrappers.
        kind: Its class, such as from :func:`fastervit_mm.models.class_of`.

    Raises:
        ValueError: For ``classes`` that are one name, as of a tuple without its comma.
    """
    names = (dataset.get('metainfo') or {}).get('classes')
    if names is None:
        names = (getattr(kind, 'METAINFO', None) or {}).get('classes')
    if isinstance(names, str):  # mmengine also takes a file with one name per line
        if not os.path.isfile(names):
            raise ValueError(f'metainfo.classes={names!r}: neither a list of names nor a file of '
                             f'them. For one class, write ({names!r}, ), with the comma')
        with open(names, encoding='utf-8') as file:
            names = [line.rstrip('\n\r') for line in file]
    return None if names is None else tuple(names)


def label_order(names: Sequence[str], ann_file: Union[str, Path]) -> Tuple[str, ...]:
    """Those of some classes that a COCO file has, in the order in which mmdet numbers them."""
    wanted = set(names)
    return tuple(name for name in category_names(ann_file) if name in wanted)
