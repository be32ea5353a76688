"""Label maps in a folder of a user's data."""
import numpy as np
import pytest
from PIL import Image

from fastervit_mm.datasets.folders import DataError
from fastervit_mm.datasets.label_maps import find_label_maps
from fastervit_mm.datasets.labels import write_label_map


def photo(path, seed=0, size=(32, 24)):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.RandomState(seed).randint(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(noise).save(path)


def label_map(path, values=(0, 1, 2), palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.resize(np.repeat(np.array(values, np.uint8), 8), (24, 32)))
    if palette:
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(path)


def write(root, image='images/{split}/{stem}.jpg', labels='annotations/{split}/{stem}.png',
          splits=('train', 'val'), **kwargs):
    for split in splits:
        for number in range(4):
            names = dict(split=split, stem=f'{split}_{number}')
            photo(root / image.format(**names), number)
            label_map(root / labels.format(**names), **kwargs)


def stems(data, split):
    return [image.stem for image, _ in data.splits[split].pairs]


def test_splits_may_have_images_of_the_same_names(tmp_path):
    for seed, split in enumerate(('train', 'val')):
        for number in range(3):
            photo(tmp_path / split / f'{number}.png', 10 * seed + number)
            label_map(tmp_path / 'labels' / split / f'{number}.png')
    data = find_label_maps(tmp_path)
    assert {split: found.pairs for split, found in data.splits.items()} == {
        split: [(tmp_path / split / f'{i}.png', tmp_path / 'labels' / split / f'{i}.png')
                for i in range(3)] for split in ('train', 'val')}


def test_each_year_of_voc_has_its_own_lists(tmp_path):
    for year, names in dict(VOC2007='012', VOC2012='120').items():
        for i in range(3):
            photo(tmp_path / year / f'JPEGImages/{i}.jpg', i)
            label_map(tmp_path / year / f'SegmentationClass/{i}.png', (0, 3, 255))
        lists = tmp_path / year / 'ImageSets/Segmentation'
        lists.mkdir(parents=True)
        for name, split in zip(names, ('train', 'val', 'test')):
            (lists / f'{split}.txt').write_text(name)
    data = find_label_maps(tmp_path)
    assert {split: stems(data, split) for split in data.splits} == dict(
        train=['0', '1'], val=['1', '2'], test=['2', '0'])


def test_folders_outside_of_the_data_can_be_taken(tmp_path):
    write(tmp_path / 'elsewhere', 'images/{stem}.jpg', 'masks/{stem}.png', splits=('a',))
    (tmp_path / 'data').mkdir()
    data = find_label_maps(tmp_path / 'data', [tmp_path / 'elsewhere/masks'],
                           [tmp_path / 'elsewhere/images'])
    assert len(stems(data, 'train')) == 3 and len(stems(data, 'val')) == 1


def test_lists_that_differ_are_refused(tmp_path):
    for i in range(3):
        photo(tmp_path / f'images/{i}.jpg', i)
        label_map(tmp_path / f'masks/{i}.png')
    for folder, names in dict(a='0', b='1').items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'train.txt').write_text(names)
    with pytest.raises(DataError, match='the lists in .*a and in .*b differ'):
        find_label_maps(tmp_path)


def test_without_a_validation_split_a_fifth_becomes_one(tmp_path):
    for number in range(20):
        photo(tmp_path / f'imgs/{number:02d}.jpg', number)
        label_map(tmp_path / f'masks/{number:02d}.png')
    photo(tmp_path / 'imgs/without.jpg')
    data = find_label_maps(tmp_path)
    train, val = (stems(data, split) for split in ('train', 'val'))
    assert len(train) == 16 and len(val) == 4 and not set(train) & set(val)
    assert 'without' not in train + val and '4 of 20' in data.notes[0]
    assert [path.name for path in data.splits['train'].no_map] == ['without.jpg']


def test_label_maps_get_other_numbers(tmp_path):
    label_map(tmp_path / 'old.png', (0, 1, 2))
    write_label_map(tmp_path / 'old.png', tmp_path / 'new/a.png', {0: 0, 1: 255, 2: 1})
    old, new = (np.asarray(Image.open(tmp_path / name)) for name in ('old.png', 'new/a.png'))
    assert (new == np.array([0, 255, 1])[old]).all() and len(np.unique(new)) == 3


@pytest.mark.parametrize('prepare, message', [
    (lambda root: photo(root / 'a.jpg'), 'no label maps were found'),
    (lambda root: write(root, splits=('val',)), "no training split, only 'val'"),
    (lambda root: (write(root), write(root, splits=('more',))), 'images of no split, such as')])
def test_unusable_data_are_reported(prepare, message, tmp_path):
    prepare(tmp_path)
    with pytest.raises(DataError, match=message):
        find_label_maps(tmp_path)
