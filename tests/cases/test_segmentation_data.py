"""Folders of images and label maps as others have them: what belongs together, and what is read."""
import subprocess
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from rich.console import Console

import fastervit_mm  # noqa: F401  (for fastervit_mm:: in a config)
from fastervit_mm.datasets.checking import check_label_maps
from fastervit_mm.datasets.checking.label_maps import read_split
from fastervit_mm.datasets.folders import DataError
from fastervit_mm.datasets.label_maps import find_label_maps, pair_folders
from fastervit_mm.datasets.labels import read_label_map
from fastervit_mm.new_config import new_config
from tests.cases.making import text

SIDE = 40


def pair(image: Path, label_map: Path, number: int, labels=(0, 1), **saving) -> None:
    """An image of one grey, and a map of which so many pixels have the second label."""
    for path in (image, label_map):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (SIDE, SIDE), (5 * number,) * 3).save(image)
    pixels = np.full((SIDE, SIDE), labels[0], np.uint8)
    pixels[0, :number] = labels[1]
    pixels[1:, :SIDE // 2] = labels[1]
    Image.fromarray(pixels).save(label_map, **saving)


def made(root: Path, tmp_path: Path, **settings):
    """The report, the config, and the numbers of image and map of each sample that mmseg reads."""
    report = new_config('seg', root, tmp_path / 'mine.py', console=Console(quiet=True), **settings)
    cfg = Config.fromfile(str(tmp_path / 'mine.py'))
    init_default_scope('mmseg')
    seen = {}
    for split in ('train', 'val', 'test'):
        dataset = dict(cfg[f'{split}_dataloader'].dataset)
        dataset['pipeline'] = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
                               dict(type='PackSegInputs')]
        samples = DATASETS.build(dataset)
        seen[split] = sorted(
            (round(float(sample['inputs'].float().mean()) / 5),
             int((sample['data_samples'].gt_sem_seg.data[0, 0] == 1).sum())) for sample in samples)
    return report, cfg, seen


CITY = ('leftImg8bit/{split}/{place}/{place}_0000_{i:06d}_leftImg8bit.png',
        'gtFine/{split}/{place}/{place}_0000_{i:06d}_gtFine_labelTrainIds.png')
LAYOUTS = {
    'Cityscapes': CITY,
    'CamVid': ('{split}/{place}{i}.png', '{split}annot/{place}{i}.png'),
    'frames in folders': ('images/{split}/{place}/{i:04d}.jpg', 'masks/{split}/{place}/{i:04d}.png'),
    'folders in frames': ('{split}/{place}/Images/{i:04d}.png', '{split}/{place}/Labels/{i:04d}.png'),
    'splits inside': ('{place}/images/{split}/{i}.jpg', '{place}/masks/{split}/{i}.png'),
    'beside each other': ('{split}set/{place}{i}_sat.jpg', '{split}set/{place}{i}_mask.png'),
    'PNG beside PNG': ('{split}/{place}/{i}.png', '{split}/{place}/{i}_mask.png'),
    'nothing says which': ('x/{split}/{place}{i}.jpg', 'y/{split}/{place}{i}.png'),
    'hashes': ('{split}/{place}_{i}_jpg.rf.0a1b.jpg', '{split}/{place}_{i}_jpg.rf.0a1b_mask.png'),
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_each_image_is_trained_with_its_map(layout, tmp_path):
    image, label_map = LAYOUTS[layout]
    number, expected = 0, {}
    for split in ('train', 'val', 'test'):
        for place in 'ab':
            for i in (1, 2):
                number += 1
                names = dict(split=split, place=place, i=i)
                pair(tmp_path / 'data' / image.format(**names),
                     tmp_path / 'data' / label_map.format(**names), number)
                expected.setdefault(split, []).append((number, number))
    report, _, seen = made(tmp_path / 'data', tmp_path)
    assert seen == expected and not report.problems


def write(root: Path, *names: str, split: str = 'train', count: int = 3, **kwargs) -> Path:
    """Images, and for each the maps that are named, with {i} for its number."""
    for i in range(1, count + 1):
        for name in names[1:]:
            pair(root / names[0].format(split=split, i=i), root / name.format(split=split, i=i), i,
                 **kwargs)
    return root


def chosen(root: Path, **settings):
    """Names of the maps of each split, from the root on."""
    data = find_label_maps(root, **settings)
    return {split: [label_map.relative_to(root).as_posix() for _, label_map in found.pairs]
            for split, found in data.splits.items()}


@pytest.mark.parametrize('maps', [
    ('gt/{split}/s{i}_labelIds.png', 'gt/{split}/s{i}_instanceIds.png', 'gt/{split}/s{i}_color.png'),
    ('gt/{split}/s{i}.png', 'gt/{split}/s{i}_color.png'),
    ('gt/{split}/s{i}_labelIds.png', 'gt/{split}/s{i}_labelTrainIds.png'),
    ('semantic/{split}/s{i}.png', 'instance/{split}/s{i}.png'),
    ('gt/semantic/{split}/s{i}.png', 'gt/instance/{split}/s{i}.png'),
    ('{split}/semantic/s{i}.png', '{split}/instance/s{i}.png')])
def test_of_several_maps_none_is_taken_unasked(maps, tmp_path):
    images = '{split}/image/s{i}.png' if maps[0].startswith('{split}') else 'images/{split}/s{i}.png'
    for split in ('train', 'val'):
        write(tmp_path, images, *maps, split=split)
    with pytest.raises(DataError) as raised:
        find_label_maps(tmp_path)
    assert '\n' not in str(raised.value)
    for name in maps:  # all candidates are named, and what is advised works
        assert Path(name.format(split='train', i=1)).name in str(raised.value)
    offers = str(raised.value).split('Say which to take: ')[1].split('. Of')[0].split(' or ')
    assert len(offers) == len(maps)
    for offer, expected in zip(offers, sorted(maps)):
        words = offer.split()
        settings = dict(zip(words[::2], words[1::2]))
        if '--map-suffix' in settings:
            found = chosen(tmp_path, map_suffix=settings['--map-suffix'])
        else:
            places = [[Path(settings[option])] for option in ('--label-maps', '--images')]
            if maps[0].startswith('{split}'):
                places = [[*place, Path(str(*place).replace('train', 'val'))] for place in places]
            found = chosen(tmp_path, label_maps=places[0], images=places[1])
        assert found == {split: [expected.format(split=split, i=i) for i in (1, 2, 3)]
                         for split in ('train', 'val')}


@pytest.mark.parametrize('image, meant, others', [
    (*(name.replace('{place}', 'a') for name in CITY), [
        CITY[1].replace('{place}', 'a').replace('labelTrainIds', kind)
        for kind in ('labelIds', 'instanceIds', 'color')]),
    ('{split}/a/JPEGImages/{i}.jpg', '{split}/a/SegmentationClass/{i}.png',
     ['{split}/a/SegmentationObject/{i}.png', '{split}/a/SegmentationClassVisualization/{i}.jpg']),
    ('images/{split}2017/{i:012d}.jpg', 'annotations/{split}2017/{i:012d}_labelTrainIds.png',
     ['annotations/{split}2017/{i:012d}.png']),
    ('images/{split}/{i}.jpg', 'masks/{split}/{i}.png', ['overlay_masks/{split}/{i}.jpg'])])
def test_what_a_standard_settles_is_not_asked(image, meant, others, tmp_path):
    for split in ('train', 'val'):
        write(tmp_path, image, meant, *others, split=split)
    assert chosen(tmp_path) == {split: [meant.format(split=split, i=i) for i in (1, 2, 3)]
                                for split in ('train', 'val')}


def test_an_image_of_two_names_or_a_map_of_two_images_is_asked_about(tmp_path):
    write(tmp_path / 'a', 'images/{i}.jpg', 'masks/{i}.png')
    write(tmp_path / 'a', 'images/{i}.png', 'masks/{i}.png', count=1)
    with pytest.raises(DataError, match='1.jpg and of .*1.png.*--img-suffix .jpg or --img-suffix .png'):
        find_label_maps(tmp_path / 'a')
    assert sum(map(len, chosen(tmp_path / 'a', img_suffix='.jpg').values())) == 3
    write(tmp_path / 'b', 'one/{i}.jpg', 'masks/{i}.png')
    write(tmp_path / 'b', 'two/{i}.jpg', 'masks/{i}.png')
    with pytest.raises(DataError, match='one.*two'):
        find_label_maps(tmp_path / 'b')


def test_two_folders_whose_images_have_the_same_names_never_mix(tmp_path):
    """A map of a sequence whose image is missing is not that of another sequence's."""
    write(tmp_path, 'images/a/{i}.png', 'masks/a/{i}.png')
    write(tmp_path, 'images/b/{i}.png', 'masks/b/{i}.png')
    (tmp_path / 'images/b/2.png').unlink()
    (tmp_path / 'masks/a/1.png').unlink()
    data = find_label_maps(tmp_path)
    pairs = [(i.relative_to(tmp_path / 'images').stem, i.parent.name, m.parent.name, m.stem)
             for found in data.splits.values() for i, m in found.pairs]
    assert sorted(pairs) == [(i, place, place, i) for i, place in (
        ('1', 'b'), ('2', 'a'), ('3', 'a'), ('3', 'b'))]
    train = data.splits['train']
    assert [path.relative_to(tmp_path).as_posix() for path in train.no_map + train.no_image] == [
        'images/a/1.png', 'masks/b/2.png']
