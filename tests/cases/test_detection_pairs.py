"""Other people's layouts of detection data: order of classes, pairs of files."""
import json
import shutil
from pathlib import Path

import pytest
from mmengine.config import Config

import fastervit_mm  # noqa: F401  (for fastervit_mm:: in a config)
from fastervit_mm.datasets.boxes import find_boxes
from fastervit_mm.datasets.checking import print_annotations
from fastervit_mm.datasets.folders import DataError
from fastervit_mm.datasets.pairing import locate, pair
from fastervit_mm.new_config.writing import names_of, write_config

from .detection import NAMES, change, coco_data, dataset_of, made, objects_of, right, seen
from .making import coco, picture, some_boxes, text, voc, yolo

# --- which class is which ------------------------------------------------------------------------

ODD = ['traffic light', "rock 'n' roll", 'say "hi"', "both ' and \"", 'back\\slash', 'new\nline',
       '007', '{{fileDirname}}', '{{_base_.x}}', '{{$HOME:x}}', '交通信号灯', 'é', '🚦', ' spaced ',
       '#', '{}', '\u2028', 'a' * 120, 'True', 'None', '']


def test_names_are_written_as_they_are(tmp_path):
    for names in (ODD, ODD[:1], ['7'], [f'class number {i}, of {i % 7} words' for i in range(80)]):
        write_config(tmp_path / 'a.py', f'classes = {names_of(names)}\n',
                     dict(classes=tuple(names)))
        assert Config.fromfile(str(tmp_path / 'a.py')).classes == tuple(names)


def test_a_config_that_would_read_differently_is_not_saved(tmp_path):
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
def test_splits_with_different_orders_get_the_same(labels, alter, tmp_path):
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


def test_conflicting_yolo_settings_are_an_error(tmp_path):
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
