"""Label maps in a folder of somebody's own data."""
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image

from .folders import DataError, files_in, share_out, split_of
from .images import IMAGES

VOID = 255
_MAP_WORDS = re.compile('ann|label|mask|seg|gt|ground|truth', re.IGNORECASE)
_SHARES = dict(train=0.8, val=0.2)
_SAMPLED = 400  # label maps that are counted; more would change no weight visibly


@dataclass
class MapSplit:
    """A split.

    Attributes:
        images: Folder of the images.
        maps: Folder of the label maps.
        stems: Names of the images in the folder, without suffix, that belong to the split; None
            for all.
    """
    images: Path
    maps: Path
    stems: Optional[List[str]] = None


@dataclass
class MapData:
    """What was found.

    Attributes:
        splits: By name; ``'train'`` and ``'val'`` are always there.
        img_suffix, seg_map_suffix: What follows the common stem of an image and its label map.
        pixels: Number of pixels by label, in a sample of the training split.
        size: The most frequent (width, height) of the images.
        palette: The colours of the label maps, if they have some.
        notes: What was done that one would want to know.
    """
    splits: Dict[str, MapSplit]
    img_suffix: str
    seg_map_suffix: str
    pixels: Counter = field(default_factory=Counter)
    size: Tuple[int, int] = (0, 0)
    palette: Optional[List[Tuple[int, int, int]]] = None
    notes: List[str] = field(default_factory=list)

    def pairs(self, split: str) -> List[Tuple[Path, Path]]:
        """Image and label map of each stem of a split."""
        found = self.splits[split]
        stems = found.stems
        if stems is None:
            stems = [p.relative_to(found.images).as_posix()[:-len(self.img_suffix)]
                     for p in files_in(found.images, [self.img_suffix.lower()])
                     if p.name.endswith(self.img_suffix)]
        return [(found.images / f'{s}{self.img_suffix}', found.maps / f'{s}{self.seg_map_suffix}')
                for s in stems]


def find_label_maps(folder: Path) -> MapData:
    """Look for images and their label maps below a folder.

    A label map is a PNG whose name is that of its image, with or without a suffix such as
    ``_mask``, in a folder of its own or beside it. Splits are told by the names of folders
    (``train``, ``val``, ``validation``, ``test``, …) or by VOC's ``ImageSets/Segmentation``;
    without a validation split, a fifth of the training images becomes one.

    Args:
        folder: Images and label maps, in any arrangement.

    Raises:
        DataError: For a folder without such pairs, or whose maps hold colours.
    """
    if not folder.is_dir():
        raise DataError(f'data={str(folder)!r}: no such folder ({folder.absolute()})')
    groups: Dict[Tuple[Path, str], List[str]] = {}
    for path in files_in(folder, IMAGES):
        groups.setdefault((path.parent, path.suffix), []).append(path.name)
    found = _pair(groups, folder)
    if not found:
        raise DataError(
            f'data={str(folder)!r}: no label maps were found. Looked for .png files that have the '
            'names of images, such as images/train/a.jpg and annotations/train/a.png')
    # Of several kinds of maps, that which most images have.
    kinds = Counter()
    for (*_, suffixes), count in found.items():
        kinds[suffixes] += count
    (img_suffix, seg_map_suffix), _ = kinds.most_common(1)[0]
    data = MapData({}, img_suffix, seg_map_suffix)
    if len(kinds) > 1:
        others = ', '.join(f'{c} with {i} and {m}' for (i, m), c in kinds.most_common()[1:])
        data.notes.append(f'only images {img_suffix} with maps {seg_map_suffix} are taken, because '
                          f'mmseg takes one kind; left out: {others}')
    for (images, maps, suffixes), _ in found.items():
        if suffixes != (img_suffix, seg_map_suffix):
            continue
        split = split_of(maps, folder) or split_of(images, folder) or 'train'
        if split in data.splits:
            raise DataError(
                f'data={str(folder)!r}: the split {split!r} is in two folders, '
                f'{data.splits[split].images} and {images}. Bring the images of a split into one '
                'folder, and their label maps into another')
        data.splits[split] = MapSplit(images, maps)
    _share_out(data, folder)
    _count(data)
    return data


def _pair(groups: Dict[Tuple[Path, str], List[str]], root: Path) -> Dict[tuple, int]:
    """(folder of images, folder of maps, (suffix of an image, of a map)) -> number of pairs."""
    pairs = {}
    for (maps, suffix), names in groups.items():
        if suffix.lower() != '.png':
            continue
        best = None
        for (images, other), candidates in groups.items():
            if (images, other) == (maps, suffix) and not any(
                    _MAP_WORDS.search(name) for name in names):
                continue
            if len({split_of(maps, root), split_of(images, root)} - {None}) > 1:
                continue  # images of two splits may have the same names
            matched = _match(candidates, names)
            if matched is None or not _are_maps(maps, images, matched, root):
                continue
            rank = (matched[2], split_of(images, root) == split_of(maps, root))
            if best is None or rank > best[0]:
                best = rank, (images, maps, matched[:2]), matched[2]
        if best is not None:
            pairs[best[1]] = max(best[2], pairs.get(best[1], 0))
    return pairs


def _match(images: Sequence[str], maps: Sequence[str]) -> Optional[Tuple[str, str, int]]:
    """Suffixes of images and maps that make most stems equal, and how many those are."""
    image_stems = {Path(n).stem: Path(n).suffix for n in images}
    ends = Counter()
    for name in maps:
        stem = Path(name).stem
        # The longest image's name that the map's begins with: a_mask.png belongs to a.jpg.
        for length in range(len(stem), 0, -1):
            if stem[:length] in image_stems and not stem[length:length + 1].isalnum():
                ends[(image_stems[stem[:length]], name[length:])] += 1
                break
    # A folder of maps beside itself matches by identity.
    ends = Counter({k: c for k, c in ends.items() if images is not maps or k[0] != k[1]})
    if not ends:
        return None
    (img_suffix, seg_map_suffix), count = ends.most_common(1)[0]
    return (img_suffix, seg_map_suffix, count) if count * 2 >= min(len(images), len(maps)) else None


def _are_maps(maps: Path, images: Path, matched: Tuple[str, str, int], root: Path) -> bool:
    """Whether the first of two folders with the same names holds the label maps."""
    img_suffix, seg_map_suffix, _ = matched
    if img_suffix.lower() != '.png' or maps == images:
        return True

    def says(place: Path) -> bool:
        return bool(_MAP_WORDS.search(place.relative_to(root).as_posix()))
    return says(maps) and not says(images) or (
        says(maps) == says(images) and _colours(maps) < _colours(images))


def _colours(folder: Path) -> int:
    """Different values in a folder's first image: few in a label map, many in a photograph."""
    with Image.open(files_in(folder, ['.png'])[0]) as image:
        return len(np.unique(np.asarray(image)))


def _share_out(data: MapData, folder: Path) -> None:
    """Splits from VOC's lists or, where there is no validation split, a fifth of the images."""
    if 'train' not in data.splits:
        raise DataError(f'data={str(folder)!r}: no training split, only '
                        f'{", ".join(map(repr, data.splits))}')
    lists = {path.stem: path.read_text().split() for path in files_in(folder, ['.txt'])
             if path.parent.name == 'Segmentation' and path.stem in ('train', 'val', 'test')}
    if list(data.splits) == ['train'] and {'train', 'val'} <= set(lists):
        whole = data.splits['train']
        data.splits = {split: MapSplit(whole.images, whole.maps, stems)
                       for split, stems in sorted(lists.items())}
        return
    if 'val' in data.splits:
        return
    whole = data.splits['train']
    # An image without a map would stop training.
    stems = [str(image.relative_to(whole.images))[:-len(data.img_suffix)]
             for image, label_map in data.pairs('train') if label_map.is_file()]
    for split, names in share_out(stems, _SHARES).items():
        data.splits[split] = MapSplit(whole.images, whole.maps, names)
    data.notes.append(f'no validation split: {len(data.splits["val"].stems)} of {len(stems)} '
                      'training images, chosen by the checksum of their names, became one')


def _count(data: MapData) -> None:
    """Pixels by label, the usual size, and colours, from the training split."""
    pairs = [pair for pair in data.pairs('train') if pair[1].is_file()]
    sizes: Counter = Counter()
    for _, path in pairs[::-(-len(pairs) // _SAMPLED) or 1]:
        with Image.open(path) as image:
            labels = np.asarray(image)
            sizes[image.size] += 1
            if image.mode == 'P' and data.palette is None:
                colours = image.getpalette()
                data.palette = [tuple(colours[i:i + 3]) for i in range(0, len(colours), 3)]
        if labels.ndim != 2:
            raise DataError(
                f'{path}: an image with {labels.shape[-1]} channels; a label map has one, with the '
                'number of a class in each pixel. Convert the colours to numbers first')
        values, counts = np.unique(labels, return_counts=True)
        data.pixels.update(dict(zip(values.tolist(), counts.tolist())))
    if not sizes:
        raise DataError(f'no training image has a label map in {data.splits["train"].maps}')
    data.size = sizes.most_common(1)[0][0]


def renumber(data: MapData, numbers: Dict[int, int], out: Path) -> None:
    """Write every label map once more with other numbers, as gray PNG, and take these.

    Args:
        data: Its splits then name the new folders.
        numbers: Old label -> new label; labels that it lacks become 255, which mmseg ignores.
        out: A folder for the splits' folders.
    """
    table = np.full(65536, VOID, np.uint8)
    for old, new in numbers.items():
        table[old] = new
    for name, split in data.splits.items():
        for _, path in data.pairs(name):
            if not path.is_file():
                continue
            target = out / name / path.relative_to(split.maps)
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as opened:
                Image.fromarray(table[np.asarray(opened).astype(np.int64)]).save(target)
    for name, split in data.splits.items():
        split.maps = out / name
    pixels = Counter()
    for label, count in data.pixels.items():
        pixels[int(table[label])] += count
    data.pixels = pixels
