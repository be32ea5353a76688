"""Links between folders of images and folders of label maps."""
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from .folders import files_in, split_of
from .images import IMAGES
from .labels import read_label_map

# If datasets have several maps of an image, the names of those with classes.
IS_STANDARD = re.compile(r'SegmentationClass(PNG)?/[^/]*$'
                         r'|(_gtFine|_gtCoarse|/\d{12})_labelTrainIds\.png$')
_MAP = re.compile('ann|label|mask|seg|gt|ground|truth|semantic|instance|panoptic|colou?r',
                  re.IGNORECASE)
_IMAGE = re.compile('ima?ge?|rgb|photo|jpe?g|frame|pict', re.IGNORECASE)
JPEG = ('.jpg', '.jpeg', '.jpe', '.jfif')
_ENDS = 4  # most words in an ending, such as x_gtFine_labelTrainIds.png's
_ALIKE = 16  # most names of a folder with the same beginning
_FEW = 100  # most folders whose pairs are all compared

Ends = Tuple[str, str]  # the rests of an image's and its map's name after their common part
Names = Dict[Ends, List[Tuple[str, str]]]


class Link(NamedTuple):
    """A folder of images and one of their label maps.

    Attributes:
        images, maps: The folders.
        names: Names of images and their maps, by endings.
        files: Names of all images, and of all maps; the two folders may be the same.
    """
    images: Path
    maps: Path
    names: Names
    files: Tuple[Sequence[str], Sequence[str]]


def links_between(images: Path, label_maps: Path, img_suffix: Optional[str],
                  map_suffix: Optional[str]) -> List[Link]:
    """Link folders of images and maps with equal paths.

    Raises:
        FileNotFoundError: For a folder that does not exist or has no image or label map.
    """
    suffixes, of = (img_suffix, map_suffix), []
    for argument, place, suffix in zip(('images', 'label_maps'), (images, label_maps), suffixes):
        if not place.is_dir():
            raise FileNotFoundError(f'{argument}={str(place)!r}: no such folder')
        of.append(_names_by_folder(place, suffix))
        if not of[-1]:
            raise FileNotFoundError(f'{argument}={str(place)!r}: no file in it ends in '
                                    + (suffix or ', '.join(IMAGES)))
    links = []
    for place in dict.fromkeys(Path(os.path.relpath(place, root)) for root, names in zip(
            (images, label_maps), of) for place in names):
        files = of[0].get(images / place, ()), of[1].get(label_maps / place, ())
        fit = _fitting(_by_stem(files[0], img_suffix), files[1], map_suffix, images == label_maps)
        links.append(Link(images / place, label_maps / place, {
            ends: names for ends, names in fit.items() if images != label_maps
            or any(_are_maps(images / place, label_maps / place, ends, names[0], certain, images)
                   for certain in (True, False))}, files))
    return links


def find_links(root: Path, img_suffix: Optional[str], map_suffix: Optional[str]) -> List[Link]:
    """Link folders of images with the nearest folders of maps."""
    folders, of_maps = (_names_by_folder(root, suffix) for suffix in (img_suffix, map_suffix))
    stems = {place: _by_stem(names, img_suffix) for place, names in folders.items()}
    splits = {place: split_of(place, root) for place in {**folders, **of_maps}}
    near = _near(splits, root)
    for certain in (True, False):  # by names, else by content
        links = []
        for maps, files in of_maps.items():
            best, reached = [], np.inf
            for distance, images in near[maps]:
                if distance > reached:
                    break
                numbers = [re.findall(r'\d+$', place.name) for place in (images, maps)]
                if len({splits[maps], splits[images]} - {None}) > 1 or (
                        all(numbers) and numbers[0] != numbers[1]):
                    continue  # images of two splits or sequences may have equal names
                names = {ends: those for ends, those in _fitting(
                    stems.get(images, {}), files, map_suffix, maps == images).items()
                    if _are_maps(images, maps, ends, those[0], certain, root)}
                if names:
                    reached = distance
                    best.append(Link(images, maps, names, (folders[images], files)))
            named = [link for link in best if _IMAGE.search(str(link.images.relative_to(root)))]
            links += [(reached, link) for link in named or best]
        if links:
            nearest = {link.images: distance for distance, link in sorted(
                links, key=lambda found: -found[0])}
            links = [link for distance, link in links if distance == nearest[link.images]]
            return links + _without_maps(links, folders, root)
    return []


def cuts(name: str, suffix: Optional[str] = None) -> Iterator[Tuple[str, str]]:
    """Cuts of a name into (stem, ending), longest stem first.

    An ending has no numbers among its words.
    """
    if suffix:
        yield name[:-len(suffix)], suffix
        return
    at = len(name)
    for _ in range(_ENDS):
        at = max((i for i in range(1, at) if not name[i].isalnum()), default=0)
        if not at or re.match(r'[\W_]+\d+(?![^\W_])', name[at:]):
            return
        yield name[:at], name[at:]


def _names_by_folder(root: Path, suffix: Optional[str]) -> Dict[Path, List[str]]:
    """Names of images by folder, without VOC's maps of instances and maps in ``.npy``."""
    folders = defaultdict(list)
    for path in files_in(root, IMAGES):
        folder = path.parent.name
        arrays = path.suffix.lower() == '.npy' and _MAP.search(folder) and not _IMAGE.search(folder)
        if folder != 'SegmentationObject' and not arrays and path.name.endswith(suffix or ''):
            folders[path.parent].append(path.name)
    return folders


def _by_stem(names: Iterable[str], suffix: Optional[str]) -> Dict[str, List[str]]:
    ends = defaultdict(list)
    for name in names:
        for stem, end in cuts(name, suffix):
            ends[stem].append(end)
    return ends


def _fitting(stems: Dict[str, List[str]], maps: Sequence[str], suffix: Optional[str], same: bool
             ) -> Names:
    """Names of images and maps with equal stems, by endings."""
    fit = defaultdict(list)
    for name in maps:
        for stem, end in cuts(name, suffix):
            ends = stems.get(stem, ())
            for other in ends if len(ends) <= _ALIKE else ():
                if not (same and other == end):
                    fit[other, end].append((stem + other, name))
    return fit


def _near(folders: Iterable[Path], root: Path) -> Dict[Path, List[Tuple[int, Path]]]:
    """Other folders for each, by the number of differing parts."""
    parts = {place: place.relative_to(root).parts for place in folders}
    alike = defaultdict(list)  # if folders are many, those that differ in one part
    for place, own in parts.items():
        for i in range(len(own)):
            alike[own[:i], own[i + 1:]].append(place)
    near = {}
    for place, own in parts.items():
        others = parts if len(parts) <= _FEW else {place, *(
            other for i in range(len(own))
            if len(those := alike[own[:i], own[i + 1:]]) <= _FEW for other in those)}
        near[place] = sorted((max(map(len, _different(own, parts[other]))), other)
                             for other in others)
    return near


def _different(one: Sequence[str], other: Sequence[str]) -> Tuple[Sequence[str], Sequence[str]]:
    """Differing parts of two paths, between equal ones."""
    begin = len(os.path.commonprefix([one, other]))
    one, other = one[begin:], other[begin:]
    end = len(os.path.commonprefix([one[::-1], other[::-1]]))
    return one[:len(one) - end], other[:len(other) - end]


def _are_maps(images: Path, maps: Path, ends: Ends, names: Tuple[str, str], certain: bool,
              root: Path) -> bool:
    """Whether the second kind of files is the maps.

    Words in folders or endings are certain. If they do not decide, maps are the files with less
    than half as many different values.
    """
    places = _different(images.parts, maps.parts) if images != maps else (
        images.relative_to(root).parts,) * 2
    image, label_map = (bool(_MAP.search('/'.join([*parts, end])))
                        for parts, end in zip(places, ends))
    if certain or image != label_map:
        return certain and label_map and not image
    return 2 * _values(maps / names[1]) < _values(images / names[0])


def _values(path: Path) -> float:
    """Number of different values; JPEG cannot hold labels."""
    return np.inf if path.suffix.lower() in JPEG else len(read_label_map(path).pixels) or np.inf


def _without_maps(links: Sequence[Link], folders: Dict[Path, List[str]], root: Path) -> List[Link]:
    """Folders beside those of images, without maps."""
    known = {place for link in links for place in link[:2]}
    beside = {Path(*link.images.parts[:len(link.images.parts) - len(same)]) for link in links
              for same in [os.path.commonprefix([link.images.parts[::-1], link.maps.parts[::-1]])]
              if link.images != link.maps}
    return [Link(place, place, {}, (names, ())) for place, names in folders.items()
            if place not in known and any(
                place.is_relative_to(top) for top in beside if top != root)]
