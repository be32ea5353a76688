"""Boxes in a folder of a user's data, in three formats."""
import json

import numpy as np
import pytest
from PIL import Image

from fastervit_mm.datasets.boxes import find_boxes
from fastervit_mm.datasets.folders import DataError

# (x, y, width, height) by class and image, in pixels of 80 x 60.
OBJECTS = {'a': [('cat', (10, 20, 30, 16)), ('dog', (0, 0, 8, 8))],
           'b': [('dog', (40, 10, 20, 40))], 'c': [],
           'd': [('cat', (4, 4, 70, 50))], 'e': [('cat', (1, 2, 3, 4))]}
SPLITS = dict(train='abc', val='d', test='e')
NAMES = ['cat', 'dog']


def image(path, size=(80, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, (9, 99, 200)).save(path)


def coco(stems):
    annotations = [dict(id=i, image_id=stem, category_id=7 + NAMES.index(name), bbox=list(box),
                        area=box[2] * box[3], iscrowd=0)
                   for i, (stem, name, box) in enumerate(
                       (s, n, b) for s in stems for n, b in OBJECTS[s])]
    return dict(images=[dict(id=s, file_name=f'{s}.jpg', width=80, height=60) for s in stems],
                annotations=annotations,
                categories=[dict(id=7 + i, name=n) for i, n in enumerate(NAMES)])


def write_coco(root, file='annotations/instances_{}.json', images='{}'):
    for split, stems in SPLITS.items():
        path = root / file.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(coco(stems)))
        for stem in stems:
            image(root / images.format(split) / f'{stem}.jpg')


def write_voc(root, listed=True):
    (root / 'Annotations').mkdir()
    (root / 'ImageSets/Main').mkdir(parents=True)
    for split, stems in SPLITS.items():
        if listed:
            (root / f'ImageSets/Main/{split}.txt').write_text('\n'.join(stems))
        for stem in stems:
            image(root / f'JPEGImages/{stem}.jpg')
            objects = ''.join(
                f'<object><name>{name}</name><difficult>{int(name == "dog" and stem == "b")}'
                f'</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{x + w}</xmax>'
                f'<ymax>{y + h}</ymax></bndbox></object>' for name, (x, y, w, h) in OBJECTS[stem])
            (root / f'Annotations/{stem}.xml').write_text(
                f'<annotation><filename>{stem}.jpg</filename>{objects}</annotation>')


def write_yolo(root, settings=True):
    for split, stems in SPLITS.items():
        for stem in stems:
            image(root / f'images/{split}/{stem}.jpg')
            lines = [f'{NAMES.index(name)} {(x + w / 2) / 80} {(y + h / 2) / 60} {w / 80} {h / 60}'
                     for name, (x, y, w, h) in OBJECTS[stem]]
            if lines:  # YOLO's tools write no file for an image without objects
                path = root / f'labels/{split}/{stem}.txt'
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text('\n'.join(lines))
    if settings:
        (root / 'data.yaml').write_text('train: images/train\nval: ../images/val\n'
                                        'test: images/test\nnames: {0: cat, 1: dog}\n')


def boxes(data, split):
    content = data.splits[split].content
    names = {c['id']: c['name'] for c in content['categories']}
    stems = {i['id']: i['file_name'].rpartition('/')[2][0] for i in content['images']}
    found = {stem: [] for stem in stems.values()}
    for a in content['annotations']:
        found[stems[a['image_id']]].append((names[a['category_id']], tuple(a['bbox'])))
    return found


@pytest.mark.parametrize('form, write', [
    ('COCO', write_coco),
    ('COCO', lambda root: write_coco(root, '{}/_annotations.coco.json')),  # Roboflow's export
    ('COCO', lambda root: write_coco(root, '{}2017.json', 'images/{}2017')),
    ('Pascal VOC', write_voc), ('YOLO', write_yolo)])
def test_the_same_boxes_are_found_in_every_form(form, write, tmp_path):
    write(tmp_path)
    data = find_boxes(tmp_path)
    assert data.form == form and set(data.splits) == set(SPLITS)
    assert data.categories == NAMES and not data.has_masks
    for split, stems in SPLITS.items():
        found = boxes(data, split)
        assert found.keys() == set(stems)
        for stem in stems:
            assert [n for n, _ in found[stem]] == [n for n, _ in OBJECTS[stem]]
            for (_, box), (_, right) in zip(found[stem], OBJECTS[stem]):
                # VOC counts pixels from 1 and includes the last.
                assert np.allclose(box, right, atol=1.01 if form == 'Pascal VOC' else 0.02)
        for listed in data.splits[split].content['images']:
            assert (data.splits[split].images / listed['file_name']).is_file()
            assert (listed['width'], listed['height']) == (80, 60)
    if form == 'Pascal VOC':  # a difficult object neither trains nor counts
        assert [a['iscrowd'] for a in data.splits['train'].content['annotations']] == [0, 0, 1]


def test_polygons_of_yolo_become_masks(tmp_path):
    image(tmp_path / 'train/a.png')
    (tmp_path / 'train/a.txt').write_text('1 0.25 0.5 0.75 0.5 0.5 1.0\n')
    image(tmp_path / 'valid/b.png')
    (tmp_path / 'valid/b.txt').write_text('0 0 0 1 0 1 1\n')
    (tmp_path / 'classes.txt').write_text('cat\ndog\n')
    data = find_boxes(tmp_path)
    assert data.has_masks and data.categories == NAMES
    annotation, = data.splits['train'].content['annotations']
    assert annotation['segmentation'] == [[20, 30, 60, 30, 40, 60]]
    assert annotation['bbox'] == [20, 30, 40, 30]


def test_without_a_validation_split_a_fifth_becomes_one(tmp_path):
    stems = [f'{i:03d}' for i in range(50)]
    (tmp_path / 'labels.json').write_text(json.dumps(dict(
        images=[dict(id=i, file_name=f'{s}.jpg', width=80, height=60)
                for i, s in enumerate(stems)],
        annotations=[dict(id=i, image_id=i, category_id=1, bbox=[1, 1, 5, 5])
                     for i in range(50)], categories=[dict(id=1, name='cat')])))
    for stem in stems:
        image(tmp_path / 'pictures' / f'{stem}.jpg')
    data, again = find_boxes(tmp_path), find_boxes(tmp_path)
    names = {s: [i['file_name'] for i in data.splits[s].content['images']]
             for s in ('train', 'val')}
    assert (len(names['train']), len(names['val'])) == (40, 10)
    assert not set(names['train']) & set(names['val'])
    assert all(data.splits[s].ann_file is None for s in names)  # to be written
    assert data.splits['val'].content == again.splits['val'].content
    assert '10 of 50' in data.notes[-1]
    for split in names:
        ids = {i['id'] for i in data.splits[split].content['images']}
        assert {a['image_id'] for a in data.splits[split].content['annotations']} == ids


def test_of_several_files_the_instances_are_used(tmp_path):
    """As in COCO's own annotations folder."""
    write_coco(tmp_path)
    (tmp_path / 'annotations/captions_train.json').write_text(json.dumps(dict(
        coco('abc'), annotations=[dict(id=1, image_id='a', caption='a cat')])))
    people = json.dumps(coco('ab'))
    (tmp_path / 'annotations/person_keypoints_train.json').write_text(people)
    assert len(find_boxes(tmp_path).splits['train'].content['images']) == 3
    folder = tmp_path / 'annotations'
    (folder / 'instances_train.json').rename(folder / 'my_train.json')
    with pytest.raises(DataError, match="several annotation files name the split 'train'.*--ann"):
        find_boxes(tmp_path)
    named = [folder / f'{n}.json' for n in ('my_train', 'instances_val')]
    assert set(find_boxes(tmp_path, named).splits) == {'train', 'val'}


@pytest.mark.parametrize('prepare, message', [
    (lambda root: None, 'no image is in it'),
    (lambda root: image(root / 'a.jpg'), r'1 images, but no boxes. Looked for: COCO .*VOC.*YOLO'),
    (lambda root: (write_coco(root), [p.unlink() for p in root.rglob('*.jpg')],
                   image(root / 'other.jpg')), "none of the .* annotated images exists"),
    (lambda root: (write_yolo(root), (root / 'labels/val/d.txt').write_text('5 0.1 0.1 0.1 0.1')),
     r'd.txt: line 1: .* expected a class from 0 to 1'),
    (lambda root: (write_yolo(root), (root / 'labels/val/d.txt').write_text('0 0.1 0.1')),
     'd.txt: line 1'),
    (lambda root: (write_voc(root), (root / 'Annotations/d.xml').write_text('<annotation><obj')),
     'd.xml: not readable as XML'),
    (lambda root: (write_voc(root), (root / 'Annotations/d.xml').write_text(
        '<annotation><object><name>cat</name></object></annotation>')),
     'd.xml: an object without xmin'),
    (lambda root: (image(root / 'val/a.jpg'),
                   (root / 'val.json').write_text(json.dumps(coco('a')))),
     "no training split, only 'val'"),
    (lambda root: (write_coco(root), (root / 'annotations/instances_val.json').write_text(
        json.dumps(dict(coco('d'), images=[dict(id='d', file_name='d.jpg'), dict(id='e')])))),
     r'instances_val.json: keys missing: image e: no file_name')])
def test_unusable_data_are_reported(prepare, message, tmp_path):
    prepare(tmp_path)
    with pytest.raises(DataError, match=message):
        find_boxes(tmp_path)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(DataError, match='nowhere.*no such folder'):
        find_boxes(tmp_path / 'nowhere')
