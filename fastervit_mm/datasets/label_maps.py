"""Label maps in a user's folder, paired with images."""
import os
import shlex
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from .folders import SPLITS, DataError, split_of, validation_share
from .lists import listed_splits
from .map_folders import IS_STANDARD, JPEG, Ends, Link, cuts, find_links, links_between


@dataclass
class MapSplit:
    """Images and label maps of a split.

    Attributes:
        pairs: Image and label map, in the order of images.
        ends: Number of pairs by their endings, after the stem that image and map share.
        no_map: Images without a label map.
        no_image: Label maps without an image.
        notes: Decisions, one sentence each.
    """
    pairs: List[Tuple[Path, Path]] = field(default_factory=list)
    ends: Counter = field(default_factory=Counter)
    no_map: List[Path] = field(default_factory=list)
    no_image: List[Path] = field(default_factory=list)
    notes: List[str] = field(default_factory=list)


@dataclass
class MapData:
    """Label maps of all splits.

    Attributes:
        splits: By name; ``'train'``, ``'val'`` and perhaps ``'test'``.
        notes: What was decided, one sentence each.
    """
    splits: Dict[str, MapSplit]
    notes: List[str] = field(default_factory=list)


def find_label_maps(folder: Path, label_maps: Sequence[Path] = (), images: Sequence[Path] = (),
                    img_suffix: Optional[str] = None, map_suffix: Optional[str] = None) -> MapData:
    """Find images and their label maps below a folder.

    A label map has the name of its image, except for an ending such as ``_mask.png``, in the same
    folder or in one that differs in a part of its path, such as ``images/train/a`` and
    ``masks/train/a``. Names of folders (``train``, ``valset``, ``testing``, …) or lists such as
    VOC's ``ImageSets/Segmentation`` give the splits; without a validation split, a fifth of the
    training images becomes one.

    Args:
        folder: Images and label maps, in any arrangement.
        label_maps: Folders of label maps: one with all splits, or one for each split in the order
            train, val, test. By default they are searched.
        images: Image folder of each; within them, a map and its image have the same path.
        img_suffix, map_suffix: Endings of names of images and label maps. Default any.

    Raises:
        DataError: For a folder without such pairs, and for an ambiguous image, map or split.
        FileNotFoundError: For a folder in ``label_maps`` or ``images`` that does not exist.
    """
    if not folder.is_dir():
        raise DataError(f'data={str(folder)!r}: no such folder ({folder.absolute()})')
    links: Dict[Optional[str], List[Link]] = defaultdict(list)
    if len(label_maps) > 1:
        for split, *places in zip(SPLITS, images, label_maps):
            links[split] = links_between(*places, img_suffix, map_suffix)
    else:
        for link in links_between(images[0], label_maps[0], img_suffix, map_suffix) if (
                label_maps) else find_links(folder, img_suffix, map_suffix):
            named = [split_of(place, folder) for place in (link.maps, link.images)
                     if place.is_relative_to(folder)]
            links[next(filter(None, named), None)].append(link)
    splits = {split: _paired(those) for split, those in links.items()}
    splits = {split: found for split, found in splits.items() if found.pairs}
    if not splits:
        raise DataError(
            f'data={str(folder)!r}: no label maps were found. Looked for images that have the '
            f'names of others, such as images/train/a{img_suffix or ".jpg"} and '
            f'annotations/train/a{map_suffix or ".png"}')
    data = MapData(splits, list(dict.fromkeys(n for s in splits.values() for n in s.notes)))
    _name_splits(data, folder)
    if 'val' not in splits:
        whole = splits['train']
        of_name = {image.relative_to(os.path.commonpath([folder, image])).as_posix(): pair
                   for pair in whole.pairs for image in pair[:1]}
        chosen = validation_share(of_name, folder, data.notes)
        splits['val'] = MapSplit([of_name[name] for name in of_name if name in chosen], whole.ends)
        whole.pairs = [of_name[name] for name in of_name if name not in chosen]
    data.splits = {split: splits[split] for split in SPLITS if split in splits}
    paired = {path for split in data.splits.values() for pair in split.pairs for path in pair}
    for split in data.splits.values():  # a file in another split's pair is not alone
        split.no_map = [path for path in split.no_map if path not in paired]
        split.no_image = [path for path in split.no_image if path not in paired]
    return data


def pair_folders(images: Path, label_maps: Path, img_suffix: Optional[str] = None,
                 map_suffix: Optional[str] = None) -> MapSplit:
    """Pair images and label maps of equal paths.

    Endings may differ.

    Args:
        images, label_maps: The two folders, which may be the same.
        img_suffix, map_suffix: Endings of names. Default any.

    Raises:
        DataError: For folders without a pair, or an image with several label maps or the reverse.
        FileNotFoundError: For a folder that does not exist or has no image or label map.
    """
    found = _paired(links_between(images, label_maps, img_suffix, map_suffix))
    if not found.pairs:
        raise DataError(f'no label map in {label_maps} has the path of an image in {images}, such '
                        f'as {found.no_map[0].relative_to(images)}' + (
                            f'; there is {found.no_image[0].relative_to(label_maps)}'
                            if found.no_image else ''))
    if (images.parent / 'ImageSets' / 'Segmentation').is_dir():  # most VOC images have no map
        listed = listed_splits({path: [path] for path in found.no_map}, images.parent,
                               'Segmentation')
        found.no_map = [path for path in found.no_map if listed.get(path)]
    return found


def _paired(links: Sequence[Link]) -> MapSplit:
    """Pair each image of some folders with one label map."""
    votes: Counter = Counter()
    for link in links:
        for ends, names in link.names.items():
            votes[_without_extensions(ends)] += len(names)
    usual = {words for words, count in votes.items() if 2 * count > max(votes.values())}
    maps_of: Dict[Path, Dict[Path, Ends]] = defaultdict(dict)
    for link in links:
        # If two endings give the same pair, the shorter counts.
        for ends, names in sorted(link.names.items(), key=lambda item: len(''.join(item[0]))):
            if _without_extensions(ends) in usual:
                for image, label_map in names:
                    maps_of[link.images / image].setdefault(link.maps / label_map, ends)
    found, images_of = MapSplit(), {}
    for image, maps in sorted(maps_of.items()):
        label_map = _of_several(image, maps, found.notes) if len(maps) > 1 else next(iter(maps))
        if label_map in images_of:
            other, ends = images_of[label_map]
            raise DataError(f'{label_map}: may be the label map of {other.name} and of {image}. '
                            + _choices('images', [(other, label_map, ends),
                                                  (image, label_map, maps[label_map])]))
        images_of[label_map] = image, maps[label_map]
        found.pairs.append((image, label_map))
        found.ends[maps[label_map]] += 1
    _find_alone(found, links)
    return found


def _without_extensions(ends: Ends) -> Tuple[str, ...]:
    """Endings without extension, as .jpg and .JPG are one kind."""
    return tuple(end.rpartition('.')[0] for end in ends)


def _of_several(image: Path, maps: Dict[Path, Ends], notes: List[str]) -> Path:
    """Choose one map: a standard's, or the only lossless one."""
    top = os.path.commonpath([path.parent for path in maps])
    names = ', '.join(str(path.relative_to(top)) for path in sorted(maps))
    for why, meant in (
            ('of classes', [path for path in maps if IS_STANDARD.search(path.as_posix())]),
            ('not JPEG', [path for path in maps if path.suffix.lower() not in JPEG])):
        if len(meant) == 1:
            if not any(why in note for note in notes):
                notes.append(f'images have several label maps, such as {names}: the one '
                             f'{why}, {meant[0].relative_to(top)}, is taken')
            return meant[0]
    hint = '' if '_gtFine_' not in names else (
        '. Classes as Cityscapes scores them are in _gtFine_labelTrainIds.png, which '
        'csCreateTrainIdLabelImgs of cityscapesscripts makes')
    raise DataError(f'{image}: has several label maps, {names}. '
                    + _choices('map', [(image, *item) for item in sorted(maps.items())]) + hint)


def _choices(what: str, pairs: Sequence[Tuple[Path, Path, Ends]]) -> str:
    """Command-line options that choose among several pairs."""
    if what == 'map' and len({label_map.parent for _, label_map, _ in pairs}) == 1:
        options = [f'--map-suffix {shlex.quote(ends[1])}' for *_, ends in pairs]
    elif what == 'images' and len({image.parent for image, *_ in pairs}) == 1:
        options = [f'--img-suffix {shlex.quote(ends[0])}' for *_, ends in pairs]
    else:
        options = [_folders_option(*pair[:2]) for pair in pairs]
    return f'Say which to take: {" or ".join(dict.fromkeys(options))}' + (
        '. Of several splits, give the folders in the order train, val, test'
        if options[0].startswith('--label-maps') else '')


def _folders_option(image: Path, label_map: Path, split: bool = False) -> str:
    """Options for two folders, without their common last parts."""
    places = [image.parent, label_map.parent]
    while places[0].name == places[1].name and places[0] != places[1] and not (
            split and split_of(Path(places[0].name), Path())):
        places = [place.parent for place in places]
    return '--label-maps {1} --images {0}'.format(*(shlex.quote(str(p)) for p in places))


def _find_alone(found: MapSplit, links: Sequence[Link]) -> None:
    """Record images without a map and maps without an image."""
    paired = {path for pair in found.pairs for path in pair}
    alone: Tuple[Dict[Path, None], ...] = ({}, {})
    for link in links:
        same = link.images == link.maps
        stems = Counter(stem for name in link.files[0] for stem, _ in cuts(name))
        for i, (place, names) in enumerate(zip(link[:2], link.files)):
            for name in names:
                # In a folder of both, a_mask.png is a map although a.png is an image.
                kinds = [(name.endswith(ends[j]), len(words[j]), -j)
                         for ends in found.ends for words in [_without_extensions(ends)]
                         for j in ((0, 1) if same else (i,)) if Path(name).stem.endswith(words[j])]
                # Further maps of a paired image are not alone.
                others = i == 1 and any(stems[stem] > same for stem, _ in cuts(name))
                if (not found.ends or kinds and max(kinds)[2] == -i) and not others and (
                        place / name not in paired):
                    alone[i][place / name] = None
    found.no_map, found.no_image = sorted(alone[0]), sorted(alone[1])


def _name_splits(data: MapData, folder: Path) -> None:
    """Divide images without a split by lists, else train on all."""
    splits = data.splits
    if None in splits and 'train' in splits:
        image, label_map = splits['train'].pairs[0]
        raise DataError(
            f'data={str(folder)!r}: there are training images, such as {image}, and images of no '
            f'split, such as {splits[None].pairs[0][0]}. Say which to take, in the order train, '
            f'val, test: {_folders_option(image, label_map, split=True)}')
    if None in splits:
        splits['train'] = splits.pop(None)
    if set(splits) == {'train'}:
        _split_by_lists(data, folder)
    if 'train' not in splits:
        raise DataError(f'data={str(folder)!r}: no training split, only '
                        f'{", ".join(map(repr, splits))}')


def _split_by_lists(data: MapData, folder: Path) -> None:
    """Divide training images by lists such as VOC's."""
    whole = data.splits['train']
    images = [*(image for image, _ in whole.pairs), *whole.no_map]
    listed = listed_splits({image: [image] for image in images}, folder, 'Segmentation',
                           [end for end, _ in whole.ends])
    if not listed:
        return
    data.splits.clear()
    for split in SPLITS:
        found = MapSplit([pair for pair in whole.pairs if listed.get(pair[0]) == split],
                         whole.ends, [path for path in whole.no_map if listed.get(path) == split])
        if found.pairs:
            data.splits[split] = found
    left = sum(not listed.get(image) for image, _ in whole.pairs)
    data.notes.append('splits are those of lists such as train.txt'
                      + (f'; {left} images with label maps are in none' if left else ''))
