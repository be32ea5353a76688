"""Detection data as other people's tools write them: what they mean, and what mmdet makes of it."""
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

import fastervit_mm  # noqa: F401  (for fastervit_mm:: in a config)
from fastervit_mm.datasets.boxes import find_boxes
from fastervit_mm.datasets.checking import check_annotations, is_note, print_annotations, wrong_ids
from fastervit_mm.datasets.folders import DataError
from fastervit_mm.datasets.pairing import locate, pair
from fastervit_mm.new_config import new_config
from fastervit_mm.new_config.images import choose_reading
from fastervit_mm.new_config.lines import names_of, write_config

from .making import coco, picture, some_boxes, text, voc, yolo

NAMES = ['red', 'blue']


def made(data, **settings):
    """A config from data, as mmengine reads it, and what was said."""
    out = data.parent / 'mine.py'
    report = new_config('det', data, out, force=True, **settings)
    return Config.fromfile(str(out)), report


def serious(report):
    return [problem for problem in report.problems if not is_note(problem[0])]


def dataset_of(cfg, split):
    init_default_scope('mmdet')
    return DATASETS.build({**cfg[f'{split}_dataloader'].dataset, 'pipeline': []})


def objects_of(data):
    """The same of data without a config."""
    found = {}
    for split in data.splits:
        for name, _, annotation, image in data.objects(split):
            found.setdefault(image['file_name'], []).append(
                (data.categories.index(name), *map(int, annotation['bbox'][:2])))
    return {name: sorted(objects) for name, objects in found.items()}


def seen(cfg, split):
    """The objects of each image as mmdet numbers them: label, left and top."""
    dataset = dataset_of(cfg, split)
    return {Path(info['img_path']).name: sorted(
        (o['bbox_label'], *map(int, o['bbox'][:2])) for o in info['instances'])
        for info in map(dataset.get_data_info, range(len(dataset)))}


def right(boxes):
    return {name: sorted(box[:3] for box in found) for name, found in boxes.items()}


def coco_data(root, names=NAMES, splits=('train', 'val'), number=2):
    boxes = {split: {f'{split}{i}.jpg': some_boxes(i, len(names)) for i in range(number)}
             for split in splits}
    for number, (split, found) in enumerate(boxes.items()):
        for seed, (name, some) in enumerate(found.items(), 100 * number):
            picture(root / split / name, some, seed=seed)
        coco(root / f'{split}.json', found, names)
    return boxes


def change(path, function):
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))


# --- which class is which ------------------------------------------------------------------------

ODD = ['traffic light', "rock 'n' roll", 'say "hi"', "both ' and \"", 'back\\slash', 'new\nline',
       '007', '{{fileDirname}}', '{{_base_.x}}', '{{$HOME:x}}', '交通信号灯', 'é', '🚦', ' spaced ',
       '#', '{}', '\u2028', 'a' * 120, 'True', 'None', '']


def test_names_are_written_as_they_are(tmp_path):
    for names in (ODD, ODD[:1], ['7'], [f'class number {i}, of {i % 7} words' for i in range(80)]):
        write_config(tmp_path / 'a.py', f'classes = {names_of(names)}\n',
                     dict(classes=tuple(names)))
        assert Config.fromfile(str(tmp_path / 'a.py')).classes == tuple(names)


def test_a_config_that_reads_otherwise_is_not_saved(tmp_path):
    with pytest.raises(DataError, match='classes'):
        write_config(tmp_path / 'a.py', "classes = ('a', 'b')\n", dict(classes=('b', 'a')))
    assert not list(tmp_path.iterdir())


def test_a_config_for_odd_names_and_places(tmp_path):
    root = tmp_path / "it's {{fileDirname}} \\ \"x\" é"
    coco_data(root, ODD, number=8)
    cfg, _ = made(root)
    order = [c['name'] for c in json.loads((root / 'train.json').read_text())['categories']]
    assert cfg.classes == tuple(name for name in order if name in cfg.classes)
    assert set(cfg.classes) <= set(ODD) and len(cfg.classes) > 10
    assert dataset_of(cfg, 'train').metainfo['classes'] == cfg.classes


def test_classes_are_in_the_order_of_the_file(tmp_path):
    boxes = coco_data(tmp_path / 'data')
    cfg, report = made(tmp_path / 'data', classes=['blue', 'red'])
    assert cfg.classes == ('red', 'blue')
    assert any('red, blue' in said for said in report.decisions)
    assert seen(cfg, 'train') == right(boxes['train'])


@pytest.mark.parametrize('labels, alter', [
    ((0, 1), lambda c: c['categories'].reverse()),
    ((0, 1), lambda c: c['categories'].insert(0, dict(id=9, name='another'))),
    ((1, ), lambda c: (c['categories'].pop(0), c.update(
        annotations=[a for a in c['annotations'] if a['category_id'] == 2])))])
def test_splits_with_other_orders_get_one(labels, alter, tmp_path):
    boxes = coco_data(tmp_path / 'data')
    change(tmp_path / 'data/val.json', alter)
    cfg, report = made(tmp_path / 'data')
    assert cfg.classes == ('red', 'blue')
    assert seen(cfg, 'val') == {name: [one for one in objects if one[0] in labels]
                                for name, objects in right(boxes['val']).items()}


def test_the_check_compares_orders(tmp_path, capsys):
    coco_data(tmp_path)
    files = [str(tmp_path / f'{split}.json') for split in ('train', 'val')]
    folders = [str(tmp_path / split) for split in ('train', 'val')]
    assert print_annotations(files, folders)
    change(tmp_path / 'val.json', lambda c: c['categories'].reverse())
    assert not print_annotations(files, folders)
    assert 'blue, red' in capsys.readouterr().out


def test_one_name_given_twice_is_one_class(tmp_path):
    boxes = coco_data(tmp_path / 'data', ['red', 'blue', 'red'], number=6)
    cfg, _ = made(tmp_path / 'data')
    assert cfg.classes == ('red', 'blue')
    assert seen(cfg, 'train') == {
        name: sorted((label % 2, x, y) for label, x, y, *_ in found)
        for name, found in boxes['train'].items()}


@pytest.mark.parametrize('names, found', [
    ('{1: red, 2: blue}', {1: 'red', 2: 'blue'}), ("{'0': red, '1': blue}", None),
    ('person', {0: 'person'}), ('[yes, no]', {0: 'yes', 1: 'no'}), ('[1, 2.0]', {0: '1', 1: '2.0'}),
    ('[a, a]', {0: 'a', 1: 'a'})])
def test_names_of_yolo(names, found, tmp_path):
    found = found or dict(enumerate(NAMES))
    picture(tmp_path / 'images/empty.jpg')
    for i, label in enumerate(found):
        picture(tmp_path / f'images/{i}.jpg')
        yolo(tmp_path / f'labels/{i}.txt', [(label, 20, 20, 20, 20)])
    text(tmp_path / 'data.yaml', f'\ufeffnames: {names}\n')
    data = find_boxes(tmp_path)
    assert data.categories == list(dict.fromkeys(found.values()))
    objects = {image['file_name']: name for split in data.splits
               for name, _, _, image in data.objects(split)}
    assert objects == {f'{i}.jpg': name for i, name in enumerate(found.values())}
    if 0 not in found:
        yolo(tmp_path / 'labels/0.txt', [(0, 20, 20, 20, 20)])
        with pytest.raises(DataError, match='labels/0.txt: line 1'):
            find_boxes(tmp_path)


# --- what belongs to what ------------------------------------------------------------------------

@pytest.mark.parametrize('xml, image', [
    ('{}/annotations/0.xml', '{}/images/0.jpg'), ('annotations/{}/0.xml', 'images/{}/0.jpg'),
    ('{}/0.xml', '{}/0.jpg'), ('{}/Annotations/0.xml', '{}/JPEGImages/0.jpg'),
    ('{}/0.jpg.xml', '{}/0.jpg')])
def test_files_belong_to_images_by_their_paths(xml, image, tmp_path):
    places = ('a', 'b', 'VOC2007', 'VOC2012')
    files = [tmp_path / xml.format(place) for place in places]
    images = [tmp_path / image.format(place) for place in places]
    assert pair(files, images, tmp_path) == dict(zip(files, images))
    assert pair(files, images[1:], tmp_path) == dict(zip(files[1:], images[1:]))


def test_other_splits_never_pair(tmp_path):
    assert pair([tmp_path / 'train/xml/0.xml'], [tmp_path / 'val/jpg/0.jpg'], tmp_path) == {}
    for many in (False, True):  # two images for a file, two files for an image
        files, images = [tmp_path / 'xml/0.xml'], [tmp_path / f'{s}/0.jpg' for s in 'ab']
        if many:
            files, images = [p.with_suffix('.xml') for p in images], [tmp_path / 'c/0.jpg']
        with pytest.raises(DataError, match='a/0.* or b/0'):
            pair(files, images, tmp_path)
    given = {tmp_path / 'xml/0.xml': 'C:\\data\\b\\0.jpg'}
    found = pair(given, [tmp_path / 'a/0.jpg', tmp_path / 'b/0.jpg'], tmp_path, given)
    assert found == {tmp_path / 'xml/0.xml': tmp_path / 'b/0.jpg'}


def test_voc_of_several_years_and_sequences(tmp_path):
    box = {'2007': (0, 5, 5, 20, 20), '2012': (1, 40, 40, 20, 20)}
    for year, one in box.items():
        root = tmp_path / f'VOC{year}'
        for i in range(4):
            picture(root / f'JPEGImages/{i}.jpg', [one], seed=i)
            voc(root / f'Annotations/{i}.xml', f'{i}.jpg', [one], NAMES)
        lists = dict(train='0\n', val='1\n', test='2\n', trainval='0\n1\n')
        if year == '2012':  # 0 is another split's there
            lists = dict(train='1\n', val='0\n', trainval='0\n1\n')
        if year == '2012':  # as of videos
            lists = {split: lines.replace('1', 'Annotations/1') for split, lines in lists.items()}
        for split, lines in lists.items():
            text(root / f'ImageSets/Main/{split}.txt', lines)
        text(root / 'ImageSets/Main/red_train.txt', '3  1\n')
    data = find_boxes(tmp_path)
    found = {split: {i['file_name']: n for n, _, _, i in data.objects(split)}
             for split in data.splits}
    assert found == dict(
        train={'VOC2007/JPEGImages/0.jpg': 'red', 'VOC2012/JPEGImages/1.jpg': 'blue'},
        val={'VOC2007/JPEGImages/1.jpg': 'red', 'VOC2012/JPEGImages/0.jpg': 'blue'},
        test={'2.jpg': 'red'})


@pytest.mark.parametrize('name, path', [
    ('images\\0.jpg', 'images/0.jpg'), ('..\\..\\upload\\4\\0.jpg', 'images/0.jpg'),
    ('../images/0.jpg', 'images/0.jpg'), ('/home/me/export/images/0.jpg', 'images/0.jpg'),
    ('C:\\me\\0.JPG', 'images/0.jpg'), ('file:///D:/images/0.jpg', 'images/0.jpg'),
    ('https://a.org/b/images/a%20b.jpg?X-Amz=1', 'images/a b.jpg'),
    ('/data/local-files/?d=images/0.jpg', 'images/0.jpg')])
def test_images_are_found_by_the_ends_of_their_names(name, path, tmp_path):
    boxes = some_boxes(1)
    picture(tmp_path / 'data' / path, boxes)
    others = {f'{i}.jpg': some_boxes(i) for i in range(1, 6)}
    for i, (other, some) in enumerate(others.items(), 1):
        picture(tmp_path / 'data/images' / other, some, seed=i)
    last = next(part for part in ('0.jpg', '0.JPG', 'a%20b.jpg') if part in name)
    coco(tmp_path / 'data/annotations/result.json', {
        name: boxes, **{name.replace(last, other): some for other, some in others.items()}}, NAMES)
    data = find_boxes(tmp_path / 'data')
    assert objects_of(data) == right({Path(path).name: boxes, **others})
    assert data.splits['train'].images == tmp_path / 'data/images'
    assert all(found.ann_file is None for found in data.splits.values())  # a copy is written


def test_an_image_that_is_missing_is_not_replaced_by_another(tmp_path):
    images = [tmp_path / name for name in ('train/0.jpg', 'val/0.jpg', 'val/1.jpg', 'a/5.jpg')]

    def found(names, split, images=images):
        return locate(names, images, tmp_path / 'x.json', split, tmp_path)
    assert found(['0.jpg', '1.jpg'], 'train') == [images[0], None]
    assert found(['0.jpg', '1.jpg'], 'val') == images[1:3]
    assert found(['/x/seq/b/5.jpg', '/x/seq/a/5.jpg'], None) == [None, images[3]]
    with pytest.raises(DataError, match='train/0.jpg or val/0.jpg'):
        found(['0.jpg'], None)


def yolo_data(root, images='images/{}.jpg', labels='labels/{}.txt', number=10):
    for i in range(number):
        boxes = some_boxes(i)
        picture(root / images.format(i), boxes)
        yolo(root / labels.format(i), boxes)


def stems(data):
    return {split: sorted(int(Path(i['file_name']).stem) for i in found.content['images'])
            for split, found in data.splits.items()}


SHARES = dict(train=range(6), val=(6, 7), test=(8, 9))


@pytest.mark.parametrize('line, setting', [
    ('./images/{}.jpg', '{}.txt'), ('/home/me/set/images/{}.jpg', '/home/me/set/{}.txt'),
    ('images/{}.jpg', '[{}.txt]'), ('D:\\set\\images\\{}.jpg', '../set/{}.txt')])
def test_lists_of_ultralytics(line, setting, tmp_path):
    yolo_data(tmp_path)
    for split, which in SHARES.items():
        text(tmp_path / f'{split}.txt', ''.join(f'{line.format(i)}\n' for i in which))
    text(tmp_path / 'data.yaml', 'path: ../set\nnames: [cat, dog]\n' + ''.join(
        f'{split}: {setting.format(split)}\n' for split in SHARES))
    assert stems(find_boxes(tmp_path)) == {s: list(which) for s, which in SHARES.items()}


def test_lists_of_darknet(tmp_path):
    yolo_data(tmp_path, 'obj_train_data/{}.jpg', 'obj_train_data/{}.txt')
    text(tmp_path / 'obj.names', 'cat\ndog\n')
    text(tmp_path / 'obj.data', 'classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\n'
         'names = data/obj.names\n')
    for split, which in (('train', range(6)), ('valid', (6, 7))):
        text(tmp_path / f'{split}.txt', ''.join(f'data/obj_train_data/{i}.jpg\n' for i in which))
    data = find_boxes(tmp_path)
    assert stems(data) == dict(train=list(range(6)), val=[6, 7])
    assert data.categories == ['cat', 'dog'] and any('2 images' in note for note in data.notes)
    (tmp_path / 'obj.data').unlink()
    assert stems(find_boxes(tmp_path)) == dict(train=list(range(6)), val=[6, 7])


def test_settings_of_yolo_that_differ_are_asked_about(tmp_path):
    yolo_data(tmp_path)
    text(tmp_path / 'data.yaml', 'names: [cat, dog]\n')
    text(tmp_path / 'copy.yaml', 'names: {0: cat, 1: dog}\n')
    assert find_boxes(tmp_path).categories == ['cat', 'dog']
    other = text(tmp_path / 'other.yaml', 'names: [dog, cat]\n')
    with pytest.raises(DataError, match='copy.yaml and .*other.yaml: .*--ann'):
        find_boxes(tmp_path)
    assert find_boxes(tmp_path, [other]).categories == ['dog', 'cat']


def test_labels_belong_to_images_by_the_last_folder_called_images(tmp_path):
    yolo_data(tmp_path, 'images/images/{}.jpg', 'images/labels/{}.txt', 2)
    for i in range(2):
        text(tmp_path / f'labels/images/{i}.txt', '')
    data = find_boxes(tmp_path)
    assert sum(len(list(data.objects(split))) for split in data.splits) == 6


@pytest.mark.parametrize('form', ['coco', 'yolo'])
def test_test_images_are_not_trained_on(form, tmp_path):
    for i, split in enumerate(('trainset', 'valset', 'testset', 'extra')):
        picture(tmp_path / f'{split}/images/{i}.jpg', some_boxes(i))
        yolo(tmp_path / f'{split}/labels/{i}.txt', some_boxes(i))
    if form == 'coco':  # one file for all
        coco(tmp_path / 'all.json', {f'{s}/images/{i}.jpg': some_boxes(i) for i, s in enumerate(
            ('trainset', 'valset', 'testset', 'extra'))}, NAMES)
    text(tmp_path / 'data.yaml', 'names: [red, blue]\n')
    assert stems(find_boxes(tmp_path)) == dict(train=[0], val=[1], test=[2])


def test_files_are_taken_in_the_order_given(tmp_path):
    coco_data(tmp_path, splits=('one', 'two', 'three'))
    files = [tmp_path / f'{name}.json' for name in ('one', 'two', 'three')]
    with pytest.raises(DataError, match='--ann TRAIN.json VAL.json TEST.json'):
        find_boxes(tmp_path)
    data = find_boxes(tmp_path, files)
    assert {s: found.ann_file for s, found in data.splits.items()} == dict(
        zip(('train', 'val', 'test'), files))
    shutil.move(files[0], tmp_path / 'val.json')
    shutil.move(files[1], tmp_path / 'train.json')
    with pytest.raises(DataError, match='--ann .*train.json .*val.json'):
        find_boxes(tmp_path, [tmp_path / 'val.json', tmp_path / 'train.json'])


def test_boxes_of_panoptic_files(tmp_path):
    boxes = coco_data(tmp_path / 'data')
    for split in boxes:
        def to_panoptic(content):
            for category in content['categories']:
                category['isthing'] = 1
            content['categories'].append(dict(id=9, name='sky', isthing=0))
            content['annotations'] = [dict(
                image_id=image['id'], file_name='0.png', segments_info=[
                    {k: a[k] for k in ('id', 'category_id', 'bbox', 'area', 'iscrowd')}
                    for a in content['annotations'] if a['image_id'] == image['id']] + [
                    dict(id=7, category_id=9, bbox=[0, 0, 9, 9], area=81, iscrowd=0)])
                for image in content['images']]
        change(tmp_path / f'data/{split}.json', to_panoptic)
    cfg, _ = made(tmp_path / 'data')
    assert cfg.classes == ('red', 'blue') and seen(cfg, 'val') == right(boxes['val'])


# --- what an image is ----------------------------------------------------------------------------

def test_labels_of_photos_that_exif_turns(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright, box = (64, 96), (0, 20, 60, 16, 24)
    for form in ('yolo', 'voc'):
        for i in range(5):
            picture(tmp_path / form / f'{i}.jpg', size=(96, 64), seed=i, exif=exif)
            if form == 'yolo':
                yolo(tmp_path / f'yolo/{i}.txt', [box], upright)
            else:
                voc(tmp_path / f'voc/{i}.xml', f'{i}.jpg', [box], ['thing'], upright)
        data = find_boxes(tmp_path / form)
        for split in ('train', 'val'):
            for _, size, annotation, image in data.objects(split):
                assert (image['width'], image['height']) == upright and size == (16, 24)
                assert annotation['bbox'] == [20, 60, 16, 24]
    voc(tmp_path / 'voc/0.xml', '0.jpg', [box], ['thing'], (96, 64))
    _, report = made(tmp_path / 'voc')
    (kind, where), = serious(report)
    assert kind == 'image of another size than annotated' and '0.xml' in where
    assert 'unturned' in where and 'mine_data' not in where


def deep(path, dtype=np.uint16, channels=1, high=4095, seed=0):
    pixels = np.random.default_rng(seed).integers(0, high, (64, 96, channels)).astype(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.png':
        import cv2
        cv2.imwrite(str(path), pixels)
    else:
        import tifffile
        tifffile.imwrite(path, pixels[..., 0] if channels == 1 else pixels,
                         photometric='minisblack', planarconfig='contig')
    return pixels


@pytest.mark.parametrize('suffix, settings', [
    ('.png', dict()), ('.png', dict(channels=3)), ('.tif', dict(channels=6, dtype=np.uint8,
                                                              high=255)),
    ('.tif', dict(dtype=np.float32)), ('.tif', dict(channels=5))])
def test_deep_images_are_read_unchanged(suffix, settings, tmp_path):
    names = {f'{i}{suffix}': some_boxes(i) for i in range(5)}
    pixels = {name: deep(tmp_path / 'data' / name, seed=i, **settings)
              for i, name in enumerate(names)}
    coco(tmp_path / 'data/all.json', names, NAMES)
    cfg, report = made(tmp_path / 'data')
    channels = settings.get('channels', 1)
    assert cfg.model.backbone.in_channels == channels and not serious(report)
    init_default_scope('mmdet')
    dataset = DATASETS.build({**cfg.val_dataloader.dataset, 'pipeline': cfg.test_pipeline[:1]})
    values = pixels[Path(dataset[0]['img_path']).name]
    assert np.array_equal(dataset[0]['img'].reshape(values.shape), values)
    from mmdet.registry import MODELS
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    import torch
    inputs = [torch.from_numpy(p.astype(np.float32)).permute(2, 0, 1) for p in pixels.values()]
    out = preprocessor(dict(inputs=inputs, data_samples=None))['inputs']
    assert out[:, :channels].mean().abs() < 0.1 and 0.9 < out.std() < 1.1
    with pytest.raises(DataError, match='--arch small'):
        new_config('det', tmp_path / 'data', tmp_path / 'b.py', arch='0')


def test_colour_is_read_as_ever_and_kinds_do_not_mix(tmp_path):
    paths, said = [], []
    for mode in ('L', 'P', 'RGB', 'RGBA'):
        paths.append(tmp_path / f'{mode}.png')
        picture(paths[-1], mode=mode)
    reading = choose_reading(paths, [], 'small', said, any_means=False)
    assert reading == ('', '', 3, '') and len(said) == 1 and 'alpha' in said[0]
    deep(tmp_path / 'deep.png')
    with pytest.raises(DataError, match='deep.png'):
        choose_reading(paths, [tmp_path / 'deep.png'], 'small', [], any_means=False)


def test_links_that_loop_and_large_images(tmp_path):
    picture(tmp_path / 'images/1.png')
    Image.new('1', (14000, 13000)).save(tmp_path / 'images/0.png')
    os.symlink(tmp_path, tmp_path / 'images/loop')
    yolo(tmp_path / 'labels/0.txt', [(0, 7000, 6500, 70, 65)], (14000, 13000))
    yolo(tmp_path / 'labels/1.txt', [(0, 20, 20, 20, 20)])
    text(tmp_path / 'data.yaml', 'names: [thing]\n')
    data = find_boxes(tmp_path)
    found = {i['file_name']: a['bbox'] for s in data.splits for *_, a, i in data.objects(s)}
    assert found.keys() == {'0.png', '1.png'}
    assert np.allclose(found['0.png'], [7000, 6500, 70, 65], atol=0.1)


# --- annotations ---------------------------------------------------------------------------------

@pytest.mark.parametrize('points, settings', [
    ('0.4 0.5 2 0.5 0.55 1', ''), ('0.4 0.5 0.5 0.55 0.45 0.5', ''),
    ('0.4 0.5 2 0.5 0.55 2', 'kpt_shape: [2, 3]'), ('0.4 0.5 0.5 0.55', 'kpt_shape: [2, 2]'),
    ('0.87', '')])
def test_poses_and_confidences_are_boxes(points, settings, tmp_path):
    for i in range(3):
        picture(tmp_path / f'images/{i}.jpg')
        yolo(tmp_path / f'labels/{i}.txt', [(0, 32, 20, 24, 32)])
        path = tmp_path / f'labels/{i}.txt'
        path.write_text(f'{path.read_text().strip()} {points}\n')
    text(tmp_path / 'data.yaml', f'names: [person]\n{settings}\n')
    data = find_boxes(tmp_path)
    assert not data.has_masks
    for *_, annotation, _ in data.objects('train'):
        assert np.allclose(annotation['bbox'], [32, 20, 24, 32], atol=0.1)


def test_turned_boxes_and_polygons_are_masks(tmp_path):
    for i, points in enumerate(('0.5 0.4 0.6 0.5 0.5 0.6 0.4 0.5',
                                '0.2 0.1 0.3 0.2 0.2 0.3 0.1 0.2')):
        picture(tmp_path / f'{i}.jpg')
        text(tmp_path / f'{i}.txt', f'0 {points}\n')
    assert find_boxes(tmp_path).has_masks


IDS = [
    lambda c: [a.update(id=f'uuid-{a["id"]}') for a in c['annotations']],
    lambda c: [a.update(id=a['id'] - 1) for a in c['annotations']],
    lambda c: [a.update(id=1) for a in c['annotations']],
    lambda c: [a.update(category_id=str(a['category_id'])) for a in c['annotations']],
    lambda c: [a.update(image_id=str(a['image_id'])) for a in c['annotations']]]


@pytest.mark.parametrize('alter', IDS)
def test_ids_that_fail_are_told_and_numbered_anew(alter, tmp_path):
    boxes = coco_data(tmp_path / 'data')
    change(tmp_path / 'data/val.json', alter)
    assert check_annotations(tmp_path / 'data/val.json', tmp_path / 'data/val').problems
    cfg, report = made(tmp_path / 'data')
    assert not serious(report) and seen(cfg, 'val') == right(boxes['val'])
    written = json.loads((tmp_path / 'mine_data/val.json').read_text())
    assert not list(wrong_ids(written, ''))
    assert not (tmp_path / 'mine_data/train.json').exists()


def test_ids_that_work_are_left_alone(tmp_path):
    coco_data(tmp_path)
    change(tmp_path / 'train.json', lambda c: (
        [i.update(id=f'image {i["id"]}') for i in c['images']],
        [a.update(id=float(a['id']), image_id=f'image {a["image_id"]}')
         for a in c['annotations']]))
    assert find_boxes(tmp_path).splits['train'].ann_file == tmp_path / 'train.json'


def test_entries_without_a_key_are_named_by_both_tools(tmp_path):
    coco_data(tmp_path)
    change(tmp_path / 'train.json', lambda c: c['annotations'][3].pop('bbox'))
    problems = check_annotations(tmp_path / 'train.json', tmp_path / 'train').problems
    assert [kind for kind, _ in problems] == ['keys missing']
    with pytest.raises(DataError, match='train.json.*annotation 4: no bbox') as raised:
        find_boxes(tmp_path)
    command = str(raised.value).split('"')[1].split()  # the remedy works as it is given
    assert command[3:] == ['--ann', str(tmp_path / 'train.json'), '--images',
                           str(tmp_path / 'train')]


def test_what_mmdet_lacks_is_added(tmp_path):
    boxes = coco_data(tmp_path / 'data')
    change(tmp_path / 'data/val.json', lambda c: (
        [i.pop('width') for i in c['images']], [a.pop('area') for a in c['annotations']],
        [a.pop('iscrowd') for a in c['annotations']]))
    path = tmp_path / 'data/train.json'
    path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes())  # which pycocotools does not read
    assert [kind for kind, _ in check_annotations(path, tmp_path / 'data/train').problems]
    cfg, report = made(tmp_path / 'data')
    assert not serious(report)
    assert {split: seen(cfg, split) for split in boxes} == {s: right(b) for s, b in boxes.items()}


def test_the_schedule_counts_what_is_trained_on(tmp_path):
    for split, number, full in (('train', 40, 12), ('val', 3, 3)):
        for i in range(number):
            boxes = some_boxes(i) if i < full else []
            picture(tmp_path / f'data/images/{split}/{i}.jpg', boxes, seed=i)
            if boxes or i % 2:
                yolo(tmp_path / f'data/labels/{split}/{i}.txt', boxes)
    text(tmp_path / 'data/data.yaml', 'names: [red, blue]\n')
    cfg, report = made(tmp_path / 'data')
    assert len(dataset_of(cfg, 'train')) == 12
    assert any('28 of 40' in said for said in report.decisions)
    assert any('300 epochs of 3 iterations' in said for said in report.decisions)
    cfg.train_dataloader.dataset.filter_cfg.filter_empty_gt = False
    assert len(dataset_of(cfg, 'train')) == 40


def test_problems_name_the_files_that_people_have(tmp_path):
    for i in range(5):
        picture(tmp_path / f'data/{i}.jpg', seed=i)
        yolo(tmp_path / f'data/{i}.txt', [(0, 90 if i == 3 else 10, 20, 20, 20)])
    _, report = made(tmp_path / 'data')
    (kind, where), = serious(report)
    assert kind == 'box outside its image' and where.startswith('3.txt: line 1')


@pytest.mark.parametrize('name, content, form', [
    ('annotations.xml', '<?xml version="1.0"?>\n<annotations><image/></annotations>', 'CVAT'),
    ('0.json', '{"shapes": [], "imagePath": "0.jpg"}', 'LabelMe'),
    ('boxes.csv', 'ImageID,Source,LabelName,Confidence,XMin,XMax\n', 'Open Images'),
    ('train.json', '{"images": [', 'train.json: Expecting value')])
def test_other_forms_are_named(name, content, form, tmp_path):
    picture(tmp_path / '0.jpg')
    text(tmp_path / name, content)
    with pytest.raises(DataError, match=form):
        find_boxes(tmp_path)
