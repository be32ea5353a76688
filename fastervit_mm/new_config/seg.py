"""Config of a segmentor for a user's data."""
import colorsys
import os
from collections import Counter
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ..datasets.checking.label_maps import ReadSplit
from ..datasets.checking.problems import Run, one_by_one
from ..datasets.folders import few, files_in
from ..datasets.images import IMAGES
from ..datasets.label_maps import MapData
from ..datasets.labels import renumbered, write_label_map
from .images import choose_reading
from .labels import Labels
from .writing import SMALL, fill, inside

# Longest side of a crop, images in a batch and iterations, from scratch and with ImageNet weights.
_SMALL, _PUBLISHED = (320, 4, 2400), (512, 2, 20000)
_PILLOW = 2 * (2**30 // 12)  # most pixels that Pillow, mmseg's reader of label maps, accepts


class _Files(NamedTuple):
    """Places of images and label maps in a config.

    Attributes:
        splits: (folder of images, folder of maps, list of names or None) of each split.
        img_suffix, map_suffix: Endings of image and map names after the common part.
        copied: Whether the label maps are copies.
    """
    splits: Dict[str, Tuple[str, str, Optional[str]]]
    img_suffix: str
    map_suffix: str
    copied: bool


def seg_config(data: MapData, reads: Mapping[str, ReadSplit], labels: Labels, root: Path, out: Path,
               arch: str = SMALL, all_channels: bool = False, run: Run = one_by_one
               ) -> Tuple[str, List[str], Dict[str, Any], bool]:
    """Choose the config of a segmentor for a user's data.

    Label maps that mmseg cannot use (0 and 255 for two classes, colours, a void label other than 0
    and 255, folders that it cannot pair) are rewritten in ``<OUT's name>_data/`` beside the config.
    So are the lists of a split without a folder.

    Args:
        data: From :func:`fastervit_mm.datasets.label_maps.find_label_maps`.
        reads: The label maps of each split.
        labels: Their meaning, from :func:`fastervit_mm.new_config.labels.choose_labels`.
        root: The data's folder.
        out: The config's file.
        arch: ``'small'``, trained from scratch, or a published variant such as ``'0'``, which
            starts from its ImageNet weights.
        all_channels: As in :func:`fastervit_mm.new_config.images.choose_reading`.
        run: How files are read and written; by default one by one.

    Returns:
        The config's text; decisions, one sentence each; values that the config must have when read,
        by dotted name; and whether label maps were copied.

    Raises:
        DataError: For images that cannot be trained on together.
    """
    said = [*data.notes, *labels.said]
    images = {split: [image for image, _ in found.pairs] for split, found in data.splits.items()}
    reading = choose_reading(images['train'], [*chain(*list(images.values())[1:])], said,
                             all_channels, run)
    choice = _choose(reads['train'], labels, *(_SMALL if arch == SMALL else _PUBLISHED))
    absent = [name for name, share in zip(labels.names, choice.shares) if not share]
    if absent:
        said.append(f'no training pixel of {few(absent)}; they keep their place among the classes')
    files = _arrange(data, reads, labels, root, out.with_name(f'{out.stem}_data'), said, run)
    said.append(f'crops of {choice.crop} x {choice.crop} from images of about {choice.scale[0]} x '
                f'{choice.scale[1]}, {choice.iterations} iterations of {choice.batch} images'
                + ('' if choice.weights is None else ', a larger weight for rare classes'))
    meant = dict(data_root=root.as_posix() + '/', classes=tuple(labels.names))
    for split, (img_path, seg_map_path, ann_file) in files.splits.items():
        dataset = f'{split}_dataloader.dataset'
        meant.update({f'{dataset}.data_prefix': dict(img_path=img_path, seg_map_path=seg_map_path),
                      f'{dataset}.img_suffix': files.img_suffix,
                      f'{dataset}.seg_map_suffix': files.map_suffix})
        if ann_file:
            meant[f'{dataset}.ann_file'] = ann_file
    # Pillow, mmseg's reader of label maps, refuses larger ones.
    huge = max(found.area for read in reads.values() for found in read.maps) > _PILLOW
    shares = 100 * choice.shares[choice.shares > 0]
    text = fill('seg', arch, root, {split: len(images[split]) for split in files.splits},
                choice.iterations, choice=choice, labels=labels, reading=reading, files=files,
                palette=[list(c) for c in _palette(len(labels.names), labels.palette)],
                rarest=shares.min(), commonest=shares.max(), stride=choice.crop * 2 // 3,
                backend=", imdecode_backend='cv2'" * huge,
                reduced=', reduce_zero_label=True' * labels.first,
                seen=max(choice.iterations * choice.batch / len(images['train']), 1))
    return text, said, meant, files.copied


def _arrange(data: MapData, reads: Mapping[str, ReadSplit], labels: Labels, root: Path,
             beside: Path, said: List[str], run: Run) -> _Files:
    """Choose folders for mmseg; copy unreadable label maps."""
    suffixes = [ends.pop() if len(ends) == 1 else '' for ends in map(set, zip(*(
        ends for found in data.splits.values() for ends in found.ends)))]
    places = {split: _places(found.pairs, suffixes) for split, found in data.splits.items()}
    maps = [found for read in reads.values() for found in read.maps]
    why = [why for why, needed in (
        ('class numbers change', labels.numbers is not None),
        ('mmseg reads one channel', any(found.channels > 1 for found in maps)),
        ('Pillow refuses maps as large',
         any(found.mode != 'L' and found.area > _PILLOW for found in maps)),
        ('mmseg reads images and maps of one ending, in parallel folders',
         any(stems != map_stems for _, (stems, map_stems) in places.values()))) if needed]
    files, work = {}, []
    for split, found in data.splits.items():
        (images, label_maps), (stems, _) = places[split]
        if why:
            label_maps = beside / split
            work += [(path, label_maps / f'{stem}.png', labels.numbers)
                     for stem, (_, path), one in zip(stems, found.pairs, reads[split].maps)
                     if one.area]
        listed = None
        if not suffixes[0] or {path for path in files_in(images, IMAGES) if path.name.endswith(
                suffixes[0])} != {image for image, _ in found.pairs}:
            path = beside / f'{split}.txt'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('\n'.join(stems) + '\n', encoding='utf-8')
            listed = inside(path, root)
        files[split] = inside(images, root), inside(label_maps, root), listed
    if why:
        list(run(write_label_map, work, 'copies of label maps'))
        said.append(f'copies of the label maps, because {" and ".join(why)}, are in {beside}')
    return _Files(files, suffixes[0], '.png' if why else suffixes[1], bool(why))


def _places(pairs: Sequence[Tuple[Path, Path]], suffixes: Sequence[str]
            ) -> Tuple[List[Path], List[List[str]]]:
    """Folders of images and of maps, and paths within them."""
    tops = [Path(os.path.commonpath([path.parent for path in paths])) for paths in zip(*pairs)]
    return tops, [[path.relative_to(top).as_posix().removesuffix(suffix) for path in paths]
                  for paths, top, suffix in zip(zip(*pairs), tops, suffixes)]


def _choose(read: ReadSplit, labels: Labels, limit: int, batch: int, iterations: int
            ) -> SimpleNamespace:
    """Choose sizes and weights; ``limit`` is a crop's longest side."""
    pixels = renumbered(read.pixels, labels.numbers)
    shares = np.array([pixels[i + labels.first] for i in range(len(labels.names))], float)
    shares /= max(shares.sum(), 1)
    size, = Counter(tuple(image.size) for image in read.images
                    if not isinstance(image.size, str)).most_common(1) or [((0, 0), 0)]
    longer, shorter = max(size[0]), min(size[0])
    crop = max(min(shorter // 32 * 32, limit), 64)
    # A crop should show much of an image.
    reduced = min(1., 2 * crop / max(shorter, 1))
    scale = round(longer * reduced), round(shorter * reduced)
    return SimpleNamespace(shares=shares, weights=_class_weights(shares), usual=size[0], crop=crop,
                           scale=scale, batch=batch, iterations=iterations)


def _class_weights(shares: np.ndarray) -> Optional[List[float]]:
    """Larger weights for rare classes, if there are any."""
    present = shares > 0
    if shares.max() < 10 * shares[present].min():
        return None
    weights = np.ones(len(shares))
    weights[present] = 1 / np.sqrt(shares[present])
    weights[present] = np.clip(weights[present] / weights[present].mean(), 0.2, 5)
    return [round(float(w), 2) for w in weights]


def _palette(count: int, given: Optional[Sequence] = None) -> List[Tuple[int, int, int]]:
    if len({tuple(colour) for colour in given or ()}) == count:
        return [tuple(colour) for colour in given]
    # Distant hues, in three strengths, so that successive classes differ.
    return [tuple(round(255 * v) for v in colorsys.hsv_to_rgb(
        i * 0.61803 % 1, (0.9, 0.55, 0.75)[i % 3], (0.9, 0.95, 0.6)[i // 3 % 3]))
        for i in range(count)]
