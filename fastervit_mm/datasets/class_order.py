"""Names of a dataset's classes, in label order.

mmdet's readers of COCO files number the classes in the order of the file's categories; a list in
the config selects some of them, but does not reorder them.
"""
import json
import mmap
import os
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

# How mmdet's readers number labels, by the class that defines load_data_list: the config's names
# in the file's order or by id; or all of the file's names.
_NUMBERING = dict(CocoDataset='listed', BaseVideoDataset='listed', Objects365V2Dataset='listed',
                  Objects365V1Dataset='by id', LVISV05Dataset='all', LVISV1Dataset='all')


def category_names(path: Union[str, Path]) -> List[str]:
    """Category names of a COCO file, in its order.

    Raises:
        ValueError: For a file without a list of categories, with the reason.
    """
    return [str(category['name']) for category in _categories(path)]


def category_ids(path: Union[str, Path], names: Sequence[str]) -> List[int]:
    """Ids of a COCO file's categories by name; none if a name is not among them.

    Raises:
        ValueError: As :func:`category_names`.
    """
    ids = {str(category['name']): category.get('id') for category in _categories(path)}
    return [ids[name] for name in names] if ids.keys() >= set(names) else []


def _categories(path: Union[str, Path]) -> List[Dict[str, Any]]:
    decoder = json.JSONDecoder()
    if not os.path.getsize(path):
        raise ValueError('it is empty')
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        at = text.rfind(b'"categories"')
        # COCO's own files end with the categories; 2 MB after the key hold them all.
        following = text[at + 12:at + 12 + 2_000_000].decode(errors='replace') if at >= 0 else ''
    try:
        categories = decoder.raw_decode(following.lstrip(' \t\r\n:'))[0]
        if _have_names(categories):
            return categories
    except json.JSONDecodeError:
        pass
    content = json.loads(Path(path).read_text(encoding='utf-8-sig'))
    categories = content.get('categories') if isinstance(content, dict) else None
    if not _have_names(categories):
        raise ValueError('no list of categories, each a dict with a name')
    return categories


def _have_names(categories: Any) -> bool:
    return isinstance(categories, list) and all(
        isinstance(category, dict) and 'name' in category for category in categories)


def numbered_by_file(kind: Optional[type]) -> str:
    """How a dataset class numbers labels by annotation file.

    Returns:
        ``'listed'``, ``'by id'`` or ``'all'``, for :func:`label_order`; ``''`` for a class that
        numbers them by the config's names.
    """
    loading = getattr(getattr(kind, 'load_data_list', None), '__qualname__', '')
    return _NUMBERING.get(loading.partition('.')[0], '')


def declared_classes(dataset: Mapping[str, Any], kind: Optional[type]) -> Optional[Tuple[str, ...]]:
    """Class names from a dataset's settings, class or folders.

    Args:
        dataset: Settings of a dataset, without wrappers.
        kind: Its class, such as from :func:`fastervit_mm.models.class_of`.

    Raises:
        ValueError: For ``classes`` that are a string, as from a tuple without its comma.
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
    return class_folders(dataset, kind) or None if names is None else tuple(names)


def class_folders(dataset: Mapping[str, Any], kind: Optional[type]) -> Tuple[str, ...]:
    """Folders that number a classifier's classes.

    Args:
        dataset: Settings of a dataset, without wrappers.
        kind: Its class. Some of mmpretrain's number folders in the order of their names.

    Returns:
        Names of the folders; none for other dataset classes.
    """
    finding = getattr(getattr(kind, '_find_samples', None), '__qualname__', '')
    prefix = dataset.get('data_prefix') or ''
    root = os.path.join(dataset.get('data_root') or '',
                        prefix.get('img_path', '') if isinstance(prefix, dict) else prefix)
    if not finding.startswith('CustomDataset.') or not os.path.isdir(root) or (
            dataset.get('ann_file') or dataset.get('split') or not dataset.get('with_label', True)):
        return ()
    from mmpretrain.datasets.custom import find_folders
    return tuple(find_folders(root)[0])


def label_order(names: Sequence[str], ann_file: Union[str, Path], numbering: str = 'listed'
                ) -> Tuple[str, ...]:
    """Classes of a COCO file as mmdet numbers them.

    Args:
        names: The config's names.
        ann_file: The file.
        numbering: From :func:`numbered_by_file`: ``'listed'``, the config's names in the file's
            order; ``'by id'``, sorted by id; ``'all'``, all of the file's. Default ``'listed'``.
    """
    wanted, categories = set(names), _categories(ann_file)
    if numbering == 'by id':
        categories = sorted(categories, key=lambda category: category['id'])
    order = (str(category['name']) for category in categories)
    return tuple(name for name in order if numbering == 'all' or name in wanted)
