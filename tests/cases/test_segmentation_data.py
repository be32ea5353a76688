"""Other people's folders of images and label maps: pairs, and labels read."""
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config, utils
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from rich.console import Console

import fastervit_mm  # noqa: F401  (for fastervit_mm:: in a config)
from fastervit_mm.datasets.checking import check_label_maps, is_note, print_label_maps
from fastervit_mm.datasets.checking.label_maps import read_split
from fastervit_mm.datasets.folders import DataError
from fastervit_mm.datasets.label_maps import find_label_maps, pair_folders
from fastervit_mm.datasets.labels import read_label_map
from fastervit_mm.engine.class_checks import wrong_classes
from fastervit_mm.new_config import new_config
from fastervit_mm.new_config.labels import choose_labels
from tests.cases.making import text

SIDE = 40


@pytest.fixture(scope='module', autouse=True)
def quickly():
    """mmengine reads 200 files of mmseg's for each config that inherits another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, '_get_cfg_metainfo', lru_cache(utils._get_cfg_metainfo))
        yield


def pair(image: Path, label_map: Path, number: int, labels=(0, 1), **saving) -> None:
    """A uniform image, and a label map with a number of pixels of the second label."""
    for path in (image, label_map):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (SIDE, SIDE), (5 * number,) * 3).save(image)
    pixels = np.full((SIDE, SIDE), labels[0], np.uint8)
    pixels[0, :number] = labels[1]
    pixels[1:, :SIDE // 2] = labels[1]
    Image.fromarray(pixels).save(label_map, **saving)


def made(root: Path, tmp_path: Path, **settings):
    """Report, config, and the numbers of image and label map in each sample of mmseg's."""
    report = new_config('seg', root, tmp_path / 'mine.py', console=Console(quiet=True), **settings)
    cfg = Config.fromfile(str(tmp_path / 'mine.py'))
    init_default_scope('mmseg')
    seen = {}
    for split in ('train', 'val', 'test'):
        dataset = dict(cfg[f'{split}_dataloader'].dataset)
        dataset.update(serialize_data=False, pipeline=[
            dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
            dict(type='PackSegInputs')])
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
    'frames in folders': ('images/{split}/{place}/{i:04d}.jpg',
                          'masks/{split}/{place}/{i:04d}.png'),
    'folders in frames': ('{split}/{place}/Images/{i:04d}.png',
                          '{split}/{place}/Labels/{i:04d}.png'),
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
    """Write images and their label maps, by names in which {i} is the number."""
    for i in range(1, count + 1):
        for name in names[1:]:
            pair(root / names[0].format(split=split, i=i), root / name.format(split=split, i=i), i,
                 **kwargs)
    return root


def chosen(root: Path, **settings):
    """Label maps of each split, relative to the root."""
    data = find_label_maps(root, **settings)
    return {split: [label_map.relative_to(root).as_posix() for _, label_map in found.pairs]
            for split, found in data.splits.items()}


@pytest.mark.parametrize('maps', [
    ('gt/{split}/s{i}_labelIds.png', 'gt/{split}/s{i}_instanceIds.png',
     'gt/{split}/s{i}_color.png'),
    ('gt/{split}/s{i}.png', 'gt/{split}/s{i}_color.png'),
    ('gt/{split}/s{i}_labelIds.png', 'gt/{split}/s{i}_labelTrainIds.png'),
    ('semantic/{split}/s{i}.png', 'instance/{split}/s{i}.png'),
    ('gt/semantic/{split}/s{i}.png', 'gt/instance/{split}/s{i}.png'),
    ('{split}/semantic/s{i}.png', '{split}/instance/s{i}.png')])
def test_of_several_label_maps_none_is_chosen_silently(maps, tmp_path):
    inside = maps[0].startswith('{split}')
    images = '{split}/image/s{i}.png' if inside else 'images/{split}/s{i}.png'
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
            if inside:
                places = [[*place, Path(str(*place).replace('train', 'val'))]
                          for place in places]
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
def test_known_datasets_need_no_option(image, meant, others, tmp_path):
    for split in ('train', 'val'):
        write(tmp_path, image, meant, *others, split=split)
    assert chosen(tmp_path) == {split: [meant.format(split=split, i=i) for i in (1, 2, 3)]
                                for split in ('train', 'val')}


def test_two_images_for_one_label_map_need_an_option(tmp_path):
    write(tmp_path / 'a', 'images/{i}.jpg', 'masks/{i}.png')
    write(tmp_path / 'a', 'images/{i}.png', 'masks/{i}.png', count=1)
    with pytest.raises(DataError, match='1.jpg and .*1.png.*-suffix .jpg or --img-suffix .png$'):
        find_label_maps(tmp_path / 'a')
    assert sum(map(len, chosen(tmp_path / 'a', img_suffix='.jpg').values())) == 3
    write(tmp_path / 'b', 'one/{i}.jpg', 'masks/{i}.png')
    write(tmp_path / 'b', 'two/{i}.jpg', 'masks/{i}.png')
    with pytest.raises(DataError, match='one.*two'):
        find_label_maps(tmp_path / 'b')


def test_two_folders_whose_images_have_the_same_names_never_mix(tmp_path):
    """A label map whose image is missing is not paired with another sequence's image."""
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


def test_a_sequence_has_no_maps_of_another(tmp_path):
    write(tmp_path, 'images/seq1/{i}.jpg', 'masks/seq2/{i}.png')
    with pytest.raises(DataError):
        find_label_maps(tmp_path)
    write(tmp_path, 'images/seq2/{i}.jpg', 'masks/seq2/{i}.png')
    assert sum(map(len, chosen(tmp_path).values())) == 3


def labelled(root: Path, arrays, splits=('train', 'val'), count: int = 2, **saving) -> Path:
    """Images of noise, and one label map for each, given by split or for all."""
    for seed, split in enumerate(splits):
        for i in range(count):
            pixels = arrays[split][i] if isinstance(arrays, dict) else arrays
            noise = np.random.default_rng(10 * seed + i).integers(0, 256, (*pixels.shape[:2], 3))
            for folder, array in (('images', noise.astype(np.uint8)), ('masks', pixels)):
                path = root / folder / split / f'{split}{i}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path, **saving if folder == 'masks' else {})
    return root


def stripes(*labels, dtype=np.uint8) -> np.ndarray:
    return np.tile(np.repeat(np.array(labels, dtype), SIDE // len(labels)), (SIDE, 1))


def trained(cfg, split='train', index=0) -> np.ndarray:
    """A row of the labels that training sees."""
    init_default_scope('mmseg')
    dataset = dict(cfg[f'{split}_dataloader'].dataset)
    zero = dataset.get('reduce_zero_label')
    dataset.update(serialize_data=False, pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', **(dict(reduce_zero_label=True) if zero else {})),
        dict(type='PackSegInputs')])
    sample = DATASETS.build(dataset)[index]
    return sample['data_samples'].gt_sem_seg.data[0, 0].tolist()


def config(root: Path, tmp_path: Path, **settings):
    report = new_config('seg', root, tmp_path / 'mine.py', console=Console(quiet=True), **settings)
    return report, Config.fromfile(str(tmp_path / 'mine.py'))


RGB = np.stack([stripes(0, 1)] * 3, 2)


@pytest.mark.parametrize('pixels, problems, copied', [
    (stripes(0, 1, dtype=np.uint16), set(), False),
    (stripes(0, 1).astype(bool), set(), False),
    (stripes(0, 1, dtype=np.int32), set(), False),
    (RGB, {'label map with several channels'}, True),
    (np.dstack([RGB, np.full((SIDE, SIDE), 255, np.uint8)]), {'label map with several channels'},
     True),
    (stripes(0, 255), {'mask whose object is void'}, True),
    (stripes(0, 1000, dtype=np.uint16), {'label out of range'}, True)])
def test_every_form_of_the_same_labels_is_trained_alike(pixels, problems, copied, tmp_path):
    labelled(tmp_path / 'data', pixels)
    report, cfg = config(tmp_path / 'data', tmp_path)
    assert trained(cfg) == trained(cfg, 'val') == stripes(0, 1)[0].tolist()
    assert cfg.num_classes == 2 and not report.problems
    assert (tmp_path / 'mine_data').exists() == copied
    # The check by hand says what mmseg could not read, without the copies.
    found = check_label_maps(tmp_path / 'data/masks/train', tmp_path / 'data/images/train')
    assert {kind for kind, _ in found.problems} - {'label that never occurs'} == problems


def test_palette_maps_are_read_as_numbers(tmp_path):
    labelled(tmp_path, stripes(0, 1, 2))
    for seed, path in enumerate(sorted(tmp_path.glob('masks/*/*.png'))):
        image = Image.open(path)
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 100 + (seed == 3), 0])
        image.save(path)
    found = pair_folders(tmp_path / 'images', tmp_path / 'masks')
    kinds = [kind for kind, _ in check_label_maps(tmp_path / 'masks', tmp_path / 'images').problems]
    assert kinds.count('palette label map') == 4 and kinds.count('label of several colours') == 1
    assert set(read_split(found, 'all').pixels) == {0, 1, 2}


@pytest.mark.parametrize('other', ['train/train1.png', 'val/val0.png'])
def test_a_renumbered_palette_is_a_problem(other, tmp_path):
    red, blue = (200, 0, 0), (0, 0, 200)
    labelled(tmp_path / 'data', stripes(0, 1, 2))
    for path in sorted((tmp_path / 'data').glob('masks/*/*.png')):
        image = Image.open(path)
        image.putpalette([0, 0, 0, *(blue + red if path.as_posix().endswith(other) else
                                     red + blue)])
        image.save(path)
    report, _ = config(tmp_path / 'data', tmp_path)
    assert {kind for kind, _ in report.problems if not is_note(kind)} == {
        'colours that are numbered anew'}


def test_gif_maps_are_read(tmp_path):
    for i in range(1, 5):
        pair(tmp_path / f'data/images/{i}.jpg', tmp_path / f'data/masks/{i}_mask.gif', i, (0, 255))
    _, cfg, seen = made(tmp_path / 'data', tmp_path)
    assert cfg.num_classes == 2 and sorted(seen['train'] + seen['val']) == [
        (i, i) for i in range(1, 5)]


@pytest.mark.parametrize('folders, classes, wrong', [
    (('ant', 'bee', 'cat'), None, 0), (('ant', 'cat'), None, 1),
    (('ant', 'bee', 'cat', 'dog'), None, 1), (('ant', 'bee'), None, 0),
    (('ant', 'bee', 'cat'), ('cat', 'bee', 'ant'), 2), (('ant', 'bee', 'cat'), ('A', 'B', 'C'), 0)])
def test_folders_of_classes_number_labels_alike(folders, classes, wrong, tmp_path):
    cfg = dict(default_scope='mmpretrain', model=dict(head=dict(num_classes=3)))
    for split, names in (('train', ('ant', 'bee', 'cat')), ('val', folders)):
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
        cfg[f'{split}_dataloader'] = dict(dataset=dict(
            type='CustomDataset', data_root=str(tmp_path), data_prefix=split,
            **(dict(metainfo=dict(classes=classes)) if classes else {})))
    loaders = ['train_dataloader', 'val_dataloader']
    assert len(list(wrong_classes(Config(cfg), loaders, training=True))) == wrong


@pytest.mark.parametrize('break_it, message', [
    (lambda path: Image.open(path).save(path.with_suffix('.jpg')), r'train0.jpg: .* saved as JPEG'),
    (lambda path: Image.fromarray(np.random.default_rng(0).integers(
        0, 256, (SIDE, SIDE, 3)).astype(np.uint8)).save(path), 'train0.png: .* colours'),
    (lambda path: Image.fromarray(stripes(-1, 2, dtype=np.int32)).save(path.with_suffix('.tif')),
     'train0.tif.* -1.*--void -1'),
    (lambda path: Image.fromarray(np.stack([stripes(0, 1), *[stripes(0, 9)] * 2], 2)).save(path),
     r'train0.png.*\(1, 9, 9\).*label_colors.txt')])
def test_untrainable_data_are_refused_in_one_line(break_it, message, tmp_path):
    labelled(tmp_path / 'data', stripes(0, 1))
    for path in (tmp_path / 'data/masks').rglob('*.png'):
        break_it(path)
        if len(list(path.parent.glob(f'{path.stem}.*'))) > 1:
            path.unlink()
    with pytest.raises(DataError, match=message) as raised:
        config(tmp_path / 'data', tmp_path)
    assert '\n' not in str(raised.value) and not (tmp_path / 'mine.py').exists()


COLOURS = np.array([(128, 64, 128), (0, 0, 255), (255, 255, 255), (0, 0, 0)], np.uint8)


@pytest.mark.parametrize('name, content', [
    ('label_colors.txt', '128 64 128\tróad\n0 0 255 "sky"\n255 255 255 white\n0 0 0 Void\n'),
    ('class_dict.csv', 'name,r,g,b\nróad,128,64,128\n"sky",0,0,255\nwhite,255,255,255\n'
     'Void,0,0,0\n'),
    ('labelmap.txt', '# label:color_rgb:parts:actions\nróad:128,64,128::\n"sky":0,0,255::\n'
     'white:255,255,255::\nVoid:0,0,0::\n'),
    ('classes.txt', 'róad: 128 64 128\n\n"sky": 0 0 255\nwhite: 255 255 255\nVoid: 0 0 0\n')])
def test_colours_become_the_classes_of_their_file(name, content, tmp_path):
    pixels = COLOURS[stripes(0, 1, 2, 3)]
    white = np.full_like(pixels, 255)
    labelled(tmp_path / 'data', dict(train=[pixels, white], val=[pixels, white]))
    text(tmp_path / 'data' / name, content)
    report, cfg = config(tmp_path / 'data', tmp_path)
    assert cfg.classes == ('róad', '"sky"', 'white')
    assert trained(cfg) == stripes(0, 1, 2, 255)[0].tolist() and set(trained(cfg, 'val', 1)) == {2}
    assert cfg.palette == COLOURS[:3].tolist() and not report.problems


def test_instance_numbers_are_not_taken_for_classes(tmp_path):
    labelled(tmp_path / 'data', np.stack([stripes(7, 90, 12, 0)] + [stripes(0, 1, 3, 0)] * 2, 2))
    text(tmp_path / 'data/panoptic_train.json', '{"annotations": [{"segments_info": []}]}')
    with pytest.raises(DataError, match=r'numbers of segments.*panoptic_train\.json'):
        config(tmp_path / 'data', tmp_path)


def test_labels_of_all_splits_are_classes(tmp_path):
    labelled(tmp_path / 'data', dict(train=[stripes(0, 1), stripes(0, 1)],
                                     val=[stripes(0, 1), stripes(1, 2)],
                                     test=[stripes(0, 1), stripes(0, 4)]),
             splits=('train', 'val', 'test'))
    report, cfg = config(tmp_path / 'data', tmp_path)
    assert cfg.num_classes == 5
    assert [kind for kind, _ in report.problems].count('label that training lacks') == 2
    report, cfg = config(tmp_path / 'data', tmp_path, void=1, force=True)
    assert cfg.classes == ('class_0', 'class_2', 'class_4')
    assert trained(cfg, 'val', 1) == stripes(255, 1)[0].tolist()
    assert trained(cfg, 'test', 1) == stripes(0, 2)[0].tolist()


def test_a_label_in_one_of_many_maps_is_known(tmp_path):
    """The label is in a single map, which a sample of a few hundred would miss."""
    rare = np.zeros((8, 8), np.uint8)
    rare[0, 0] = 3
    labelled(tmp_path, dict(train=[rare if i == 1 else rare // 4 for i in range(402)]),
             splits=('train',), count=402)
    found = pair_folders(tmp_path / 'images', tmp_path / 'masks')
    assert read_split(found, 'train').pixels == {0: 402 * 64 - 1, 3: 1}


@pytest.mark.parametrize('content, void, expected', [
    ('sky\n\nróad\n"car"\n', None, ('sky', 'róad', '"car"')),
    ('\ufeffsky\r\nroad\r\n日本\r\n', None, ('sky', 'road', '日本')),
    ('0 sky\n1 road\n2 tram stop\n', None, ('sky', 'road', 'tram stop')),
    ('2: car\n0: sky\n1: road\n', None, ('sky', 'road', 'car')),
    ('1 road\n2 car\n', 0, ('road', 'car')),
    ('background\nroad\ncar\n', 0, ('road', 'car')),
    ('background\nroad\ncar\n', None, ('background', 'road', 'car')),
    ('road\ncar\n', 0, ('road', 'car')),
    ('0\n1\n2\n', None, ('0', '1', '2')),
    ('1 euro\n2 euro\n5 euro\n', None, ('1 euro', '2 euro', '5 euro')),
    ('sky\nroad\ncar\n', 1, ('sky', 'car'))])
def test_names_of_classes_in_a_file(content, void, expected, tmp_path):
    labelled(tmp_path, stripes(0, 1, 2, 0), splits=('train',))
    (tmp_path / 'classes.txt').write_bytes(content.encode())
    read = read_split(pair_folders(tmp_path / 'images', tmp_path / 'masks'), 'train')
    assert tuple(choose_labels(dict(train=read), tmp_path, void=void).names) == expected


def test_sparse_labels_are_numbered_by_the_names_that_are_given(tmp_path):
    labelled(tmp_path / 'data', stripes(0, 100, 200, 255))
    report, cfg = config(tmp_path / 'data', tmp_path, classes=['a', 'b', 'c'])
    assert cfg.classes == ('a', 'b', 'c') and trained(cfg) == stripes(0, 1, 2, 255)[0].tolist()


def test_images_of_several_suffixes_and_several_folders_are_all_taken(tmp_path):
    data = tmp_path / 'data'
    for i, (image, label_map) in enumerate((
            ('a/images/train/1.jpg', 'a/masks/train/1.png'),
            ('a/images/train/2.JPG', 'a/masks/train/2.png'),
            ('b/train/images/1.png', 'b/train/masks/1.png'),
            ('b/images/val/1.jpg', 'b/masks/val/1.png')), 1):
        pair(data / image, data / label_map, i)
    report, cfg, seen = made(data, tmp_path)
    assert seen == dict(train=[(1, 1), (2, 2), (3, 3)], val=[(4, 4)], test=[(4, 4)])
    assert not report.problems and any('copies' in said for said in report.decisions)


@pytest.mark.parametrize('folder', ['ImageSets/Segmentation', '.', 'splits'])
def test_lists_are_the_splits(folder, tmp_path):
    write(tmp_path, 'JPEGImages/{i}.jpg', 'SegmentationClass/{i}.png', count=6)
    for split, names in dict(train='JPEGImages/1.jpg x/1.png\n2 2\n6', val='3\n4\n', test='5\n6\n',
                             trainval='1\n2\n3\n4').items():
        text(tmp_path / folder / f'{split}.txt', names)
    text(tmp_path / 'ImageSets/Main/person_train.txt', '5 1\n')
    assert {split: [Path(name).stem for name in names]
            for split, names in chosen(tmp_path).items()} == dict(
        train=['1', '2'], val=['3', '4'], test=['5', '6'])


def test_lists_of_sequences_are_the_splits(tmp_path):
    for place in ('bear', 'bus', 'cat'):
        write(tmp_path, f'JPEGImages/480p/{place}/{{i:05d}}.jpg',
              f'Annotations/480p/{place}/{{i:05d}}.png', count=2)
    text(tmp_path / 'ImageSets/2017/train.txt', 'bear\ncat\n')
    text(tmp_path / 'ImageSets/2017/val.txt', 'bus\n')
    found = {split: {Path(name).parent.name for name in names}
             for split, names in chosen(tmp_path).items()}
    assert found == dict(train={'bear', 'cat'}, val={'bus'})


def test_images_outside_the_lists_need_no_label_map(tmp_path):
    write(tmp_path, 'JPEGImages/{i}.jpg', 'SegmentationClass/{i}.png', count=5)
    for i in (2, 3):
        (tmp_path / f'SegmentationClass/{i}.png').unlink()
    places = tmp_path / 'JPEGImages', tmp_path / 'SegmentationClass'
    assert [path.stem for path in pair_folders(*places).no_map] == ['2', '3']
    text(tmp_path / 'ImageSets/Segmentation/train.txt', '1\n2\n4\n')
    assert [path.stem for path in pair_folders(*places).no_map] == ['2']


def test_with_two_images_one_is_for_validation(tmp_path):
    write(tmp_path, 'images/{i}.jpg', 'masks/{i}.png', count=1)
    with pytest.raises(DataError, match=r'images/1\.jpg; training needs another'):
        find_label_maps(tmp_path)
    write(tmp_path, 'images/{i}.jpg', 'masks/{i}.png', count=2)
    assert sorted(map(len, chosen(tmp_path).values())) == [1, 1]


def test_images_of_unknown_split_beside_training_images_need_an_option(tmp_path):
    write(tmp_path, 'images/{split}/{i}.jpg', 'masks/{split}/{i}.png')
    write(tmp_path, 'images/{split}/{i}.jpg', 'masks/{split}/{i}.png', split='extra')
    with pytest.raises(DataError, match='no split.*extra.*maps .*masks/train .*images/train$'):
        find_label_maps(tmp_path)
    taken = chosen(tmp_path, label_maps=[tmp_path / 'masks/train'],
                   images=[tmp_path / 'images/train'])
    assert len(taken['train'] + taken['val']) == 3
    taken = chosen(tmp_path, label_maps=[tmp_path / f'masks/{s}' for s in ('train', 'extra')],
                   images=[tmp_path / f'images/{s}' for s in ('train', 'extra')])
    assert taken['val'] == [f'masks/extra/{i}.png' for i in (1, 2, 3)]


def test_a_label_map_too_large_for_pillow_is_read(tmp_path):
    """14000 x 14000, as of aerial images, which mmseg's own reader refuses."""
    side, path = 14000, tmp_path / '0.png'
    image = Image.new('1', (side, side))
    image.putpixel((5, 5), 1)
    image.save(path, compress_level=1)
    found = read_label_map(path)
    assert found.size == (side, side) and found.pixels == {0: side * side - 1, 1: 1}


@pytest.mark.parametrize('make', [
    lambda root: labelled(root, stripes(0, 1, 2, 255)),
    lambda root: (labelled(root, stripes(0, 2, 3, 255)),
                  (root / 'masks/train/train0.png').unlink()),
    lambda root: (labelled(root, stripes(0, 1, 2)), (root / 'images/val/val1.png').unlink(),
                  (root / 'masks/train/train0.png').write_bytes(b'no image')),
    lambda root: (labelled(root, stripes(0, 1)), Image.new('L', (9, 9)).save(
        root / 'masks/val/val0.png')),
    lambda root: labelled(root, dict(train=[stripes(0, 1)] * 2, val=[stripes(0, 2)] * 2))])
def test_both_tools_report_the_same_problems(make, tmp_path):
    make(tmp_path / 'data')
    report, _ = config(tmp_path / 'data', tmp_path)
    said = Console(record=True, width=300, quiet=False, force_terminal=False)
    print_label_maps(*([str(tmp_path / 'data' / folder / split) for split in ('train', 'val')]
                       for folder in ('masks', 'images')), said)
    lines = said.export_text().splitlines()
    found = [line.split(': ')[1] for line in lines if line.startswith(('note:', 'problem:'))]
    assert found == sorted({kind for kind, _ in report.problems})
    for _, where in report.problems:  # the split has another name there
        assert any(where.partition(': ')[2] in line for line in lines), where


@pytest.mark.parametrize('channels, suffix', [(1, '.png'), (3, '.png'), (4, '.npy')])
def test_channels_or_bits_are_lost(channels, suffix, tmp_path):
    labelled(tmp_path / 'data', stripes(0, 1))
    for i, path in enumerate(sorted((tmp_path / 'data/images').rglob('*.png'))):
        pixels = np.random.default_rng(i).integers(900, 4000, (SIDE, SIDE, channels))
        path.unlink()
        if suffix == '.npy':
            np.save(path.with_suffix('.npy'), pixels)
        else:
            cv2.imwrite(str(path), pixels.astype(np.uint16))
    _, cfg = config(tmp_path / 'data', tmp_path)
    init_default_scope('mmseg')
    sample = DATASETS.build(dict(cfg.val_dataloader.dataset))[0]['inputs']
    assert sample.shape[0] == channels == cfg.model.backbone.in_channels and sample.max() > 3000
    assert len(cfg.model.data_preprocessor.mean) == channels
    assert cfg.model.data_preprocessor.size == (64, 64)
    DATASETS.build(dict(cfg.train_dataloader.dataset))[0]  # no step of it needs three channels
