"""A config for a segmentor on one's own data."""
import colorsys
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from ..datasets.folders import SPLITS, DataError
from ..datasets.label_maps import VOID, MapData, renumber
from .lines import (
    SMALL,
    Lines,
    add_schedule,
    base_config,
    check_arch,
    count,
    few,
    inside,
    names_of,
    quoted,
)

# Longest side of a crop, images in a batch and iterations, from scratch and with ImageNet weights.
_SMALL, _PUBLISHED = (320, 4, 2400), (512, 2, 20000)


@dataclass(frozen=True)
class _Choice:
    """What was chosen from the data.

    Attributes:
        first: The label of the first class.
        shares: Each class's share of the pixels that have a class.
        weights: A weight for each class in the loss; None for equal ones.
        usual: The most frequent (width, height) of an image.
        crop: Side of a crop in training, in pixels.
        scale: (longer, shorter) side to which images are resized, before random scaling.
    """
    names: List[str]
    first: int
    shares: np.ndarray
    weights: Optional[List[float]]
    usual: Tuple[int, int]
    crop: int
    scale: Tuple[int, int]
    batch: int
    iterations: int


def seg_config(data: MapData, root: Path, out: Path, classes: Sequence[str] = (),
               arch: str = SMALL, void: int = VOID) -> Tuple[str, List[str], dict]:
    """A config for a segmentor on one's own data.

    Label maps that mmseg cannot use as they are (0 and 255 for two classes, a void label that is
    neither 0 nor 255) are written once more to ``<OUT's name>_data/`` beside the config, as are
    the lists of a split without a folder.

    Args:
        data: From :func:`fastervit_mm.datasets.label_maps.find_label_maps`; changed where label
            maps are written.
        root: The data's folder.
        out: The config's file.
        classes: Names of the classes, from the lowest label on. Default from a ``classes.txt``,
            else ``class_0``, ``class_1``, …
        arch: ``'small'``, trained from scratch, or a published variant such as ``'0'``, which
            starts from its ImageNet weights.
        void: The label of pixels that belong to no class. With 0, the other labels count from 1,
            as in ADE20K.

    Returns:
        The config's text, and what was decided, one sentence each.

    Raises:
        DataError: For fewer names than labels.
        ValueError: For an unknown ``arch``.
    """
    check_arch(arch)
    beside = out.with_name(f'{out.stem}_data')
    said = list(data.notes)
    _renumber(data, void, beside, said)
    first = 1 if void == 0 else 0  # with reduce_zero_label, label 1 becomes 0
    names = _choose_names(data, root, classes, first, said)
    choice = _choose(data, names, first, *(_SMALL if arch == SMALL else _PUBLISHED))
    said.append(f'crops of {choice.crop} x {choice.crop} from images of about {choice.scale[0]} x '
                f'{choice.scale[1]}, {choice.iterations} iterations of {choice.batch} images'
                + ('' if choice.weights is None else ', a larger weight for rare classes'))
    return (_text(choice, data, root, arch, _write_lists(data, root, beside)), said,
            dict(data_root=root.as_posix() + '/', classes=tuple(names)))


def _renumber(data: MapData, void: int, beside: Path, said: List[str]) -> None:
    """Write other label maps where mmseg could not use these."""
    if set(data.pixels) == {0, VOID} and void == VOID:
        renumber(data, {0: 0, VOID: 1}, beside)
        said.append('the label maps hold 0 and 255, and mmseg ignores 255: copies with 0 and 1 '
                    f'are in {beside}')
    elif void not in (0, VOID):
        labels = [label for label in sorted(data.pixels) if label not in (void, VOID)]
        renumber(data, {label: i for i, label in enumerate(labels)}, beside)
        said.append(f'mmseg ignores 255 and not {void}: copies of the label maps with 255 for it, '
                    f'and 0 to {len(labels) - 1} for the others, are in {beside}')


def _choose_names(data: MapData, root: Path, classes: Sequence[str], first: int,
                  said: List[str]) -> List[str]:
    labels = [label for label in data.pixels if label != VOID and label >= first]
    if not labels:
        raise DataError(f'data={str(root)!r}: the label maps hold {sorted(data.pixels)}, which is '
                        'no class')
    highest = max(labels) - first + 1
    names = list(classes) or _names(root)
    if not names:
        names = [f'class_{label}' for label in range(first, first + highest)]
        said.append(f'nothing names the classes; they are called {names[0]} to {names[-1]}: give '
                    '--classes, or rename them in the config')
    if len(names) < highest:
        raise DataError(
            f'classes={names}: {count(len(names), "name", "names")}, but the labels in training '
            f'are {few(sorted(data.pixels), 30)}: with {first} as the first, {highest} classes'
            + ('' if first else '. If 0 is no class: --void 0'))
    if first == 0 and 0 not in data.pixels:
        said.append('no pixel has label 0; if the labels count from 1, give --void 0')
    absent = [name for i, name in enumerate(names) if i + first not in data.pixels]
    if absent:
        said.append(f'no training pixel of {few(absent)}; they keep their place among the classes')
    return names


def _names(root: Path) -> List[str]:
    for name in ('classes.txt', 'labels.txt', 'label_names.txt'):
        if (root / name).is_file():
            lines = (line.strip() for line in (root / name).read_text().splitlines())
            return [line for line in lines if line]
    return []


def _choose(data: MapData, names: List[str], first: int, limit: int, batch: int, iterations: int
            ) -> _Choice:
    shares = np.array([data.pixels.get(i + first, 0) for i in range(len(names))], float)
    shares /= shares.sum()
    longer, shorter = max(data.size), min(data.size)
    crop = max(min(shorter // 32 * 32, limit), 64)
    # A crop should show a good part of an image.
    reduced = min(1., 2 * crop / shorter)
    scale = round(longer * reduced), round(shorter * reduced)
    return _Choice(names, first, shares, _class_weights(shares), data.size, crop, scale, batch,
                   iterations)


def _class_weights(shares: np.ndarray) -> Optional[List[float]]:
    """Weights against rare classes; None if none is ten times as frequent as another."""
    present = shares > 0
    if shares.max() < 10 * shares[present].min():
        return None
    weights = np.ones(len(shares))
    weights[present] = 1 / np.sqrt(shares[present])
    weights[present] = np.clip(weights[present] / weights[present].mean(), 0.2, 5)
    return [round(float(w), 2) for w in weights]


def _text(choice: _Choice, data: MapData, root: Path, arch: str,
          files: Dict[str, Tuple[str, str, Optional[str]]]) -> str:
    small = arch == SMALL
    lines = Lines()
    lines.because('UperNet, ' + ('small, trained from scratch' if small else f'FasterViT-{arch}')
                  + f', for the label maps in {root}: '
                  + ', '.join(f'{len(data.pairs(s))} {s}' for s in files)
                  + f' images, {count(len(choice.names), "class", "classes")}. Written by '
                  'tools/new_config.py seg; every line may be changed.')
    lines.add(f"""
_base_ = 'fastervit_mm::mmseg/{base_config('upernet_fvit', arch)}.py'
custom_imports = dict(imports=[
    'fastervit_mm', 'fastervit_mm.engine', 'fastervit_mm.engine.seg_losses',
    'fastervit_mm.engine.seg_visualizer'])

data_root = {quoted(root.as_posix() + '/')}
classes = {names_of(choice.names)}
num_classes = len(classes)
palette = [""")
    colours = [str(list(colour)) for colour in _palette(
        len(choice.names), data.palette and data.palette[choice.first:])]
    lines.extend(f'    {", ".join(colours[i:i + 5])},' for i in range(0, len(colours), 5))
    lines.append(']\n')
    usual = f'Most images are {choice.usual[0]} x {choice.usual[1]}. '
    if choice.scale != (max(choice.usual), min(choice.usual)):
        usual += (f'They are reduced to {choice.scale[0]} x {choice.scale[1]}, so that a crop '
                  'shows a good part of one. ')
    lines.because(usual + 'Sides of a crop are multiples of 32.')
    lines.add(f'crop_size = ({choice.crop}, {choice.crop})\nscale = {choice.scale}')
    if choice.weights is None:
        lines.append('loss = dict()')
    else:
        shares = 100 * choice.shares[choice.shares > 0]
        lines.because(f'The rarest class has {shares.min():.2g} % of the pixels, the most frequent '
                      f'{shares.max():.0f} %: weights in proportion to the inverse square root of '
                      'the shares.')
        lines.append("loss = dict(type='WeightedCrossEntropyLoss', class_weight=[")
        lines.extend(f'    {", ".join(map(str, choice.weights[i:i + 12]))},'
                     for i in range(0, len(choice.weights), 12))
        lines.append('])')
    lines.add(f"""
model = dict(
    data_preprocessor=dict(size=crop_size),
    decode_head=dict(num_classes=num_classes, loss_decode=loss),
    auxiliary_head=dict(num_classes=num_classes, loss_decode=loss),
    test_cfg=dict(crop_size=crop_size, stride=({choice.crop * 2 // 3}, {choice.crop * 2 // 3})))
""")
    lines.append('')
    zero = ''
    if choice.first:
        zero = ', reduce_zero_label=True'
        lines.because('Label 0 is no class: it becomes 255, which is ignored, and the others lose '
                      'one.')
    lines.add(f"""
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'{zero}),
    dict(type='RandomResize', scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations'{zero}),  # after Resize: ground truth keeps its own size
    dict(type='PackSegInputs'),
]
dataset = dict(
    type='BaseSegDataset', data_root=data_root, metainfo=dict(classes=classes, palette=palette),
    img_suffix={data.img_suffix!r}, seg_map_suffix={data.seg_map_suffix!r}{zero})""")
    for split in SPLITS:
        if split not in files:
            lines.because('There is no test split: tools/test.py scores the validation images.')
            lines.append('test_dataloader = val_dataloader')
            continue
        images, maps, listed = files[split]
        batch = f'\n    batch_size={choice.batch},' if split == 'train' else ''
        listed = f'\n        ann_file={listed!r},' if listed else ''
        lines.add(f"""
{split}_dataloader = dict({batch}
    dataset=dict(
        _delete_=True, **dataset,{listed}
        data_prefix=dict(img_path={images!r}, seg_map_path={maps!r}),
        pipeline={'train' if split == 'train' else 'test'}_pipeline))""")
    lines.append('')
    seen = choice.iterations * choice.batch / len(data.pairs('train'))
    lines.because(f'{choice.iterations} iterations of {choice.batch} images see each image '
                  f'{max(seen, 1):.0f} times. More help if the score still rises at the end'
                  + ('.' if small else '; the learning rate, 6e-5 for 16 images, is scaled to '
                     'your batch.'))
    interval = choice.iterations // 8
    lines.add(f"""
max_iters = {choice.iterations}
train_cfg = dict(max_iters=max_iters, val_interval={interval})""")
    add_schedule(lines, small, epochs=False)
    lines.add(f"""
default_hooks = dict(checkpoint=dict(interval={interval}, max_keep_ckpts=2, save_best='mIoU'))""")
    return str(lines)


def _palette(count: int, given: Optional[Sequence] = None) -> List[Tuple[int, int, int]]:
    if given and len(set(given[:count])) == count:
        return [tuple(colour) for colour in given[:count]]
    # Hues far apart, in three strengths, so that neighbours among the classes differ.
    return [tuple(round(255 * v) for v in colorsys.hsv_to_rgb(
        i * 0.61803 % 1, (0.9, 0.55, 0.75)[i % 3], (0.9, 0.95, 0.6)[i // 3 % 3]))
        for i in range(count)]


def _write_lists(data: MapData, root: Path, beside: Path
                 ) -> Dict[str, Tuple[str, str, Optional[str]]]:
    """(folder of images, folder of maps, list of names or None) of each split."""
    files = {}
    for split in SPLITS:
        if split not in data.splits:
            continue
        found, listed = data.splits[split], None
        if found.stems is not None:
            path = beside / f'{split}.txt'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('\n'.join(found.stems) + '\n')
            listed = inside(path, root)
        files[split] = (inside(found.images, root), inside(found.maps, root), listed)
    return files
