"""Images and annotations as other people's tools write them, for detection."""
import json
import os
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

import fastervit_mm  # noqa: F401  (for fastervit_mm:: in a config)
from fastervit_mm.datasets.boxes import find_boxes
from fastervit_mm.datasets.checking import check_annotations, wrong_ids
from fastervit_mm.datasets.folders import DataError
from fastervit_mm.new_config.images import choose_reading

from .detection import NAMES, change, coco_data, dataset_of, made, right, seen, serious
from .making import coco, picture, some_boxes, text, voc, yolo

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


def deep(path, dtype=np.uint16, channels=1, high=4095, seed=0, planar=False):
    """An image of noise, each channel brighter than the one before; returns (H, W, C)."""
    highs = np.arange(1, channels + 1) * high // channels
    pixels = np.random.default_rng(seed).integers(0, highs, (64, 96, channels)).astype(dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.png':
        import cv2
        cv2.imwrite(str(path), pixels)
    elif path.suffix == '.npy':
        np.save(path, pixels.transpose(2, 0, 1) if planar else pixels)
    else:
        import tifffile
        written = pixels.transpose(2, 0, 1) if planar else pixels
        tifffile.imwrite(path, written[..., 0] if channels == 1 else written,
                         photometric='minisblack', planarconfig='separate' if planar else 'contig')
    return pixels


@pytest.mark.parametrize('suffix, arch, settings', [
    ('.png', 'small', dict()), ('.png', '0', dict(channels=3)),
    ('.tif', 'small', dict(channels=6, dtype=np.uint8, high=255)),
    ('.tif', '0', dict(dtype=np.float32)), ('.tif', '0', dict(channels=5, planar=True)),
    ('.npy', 'small', dict(channels=4, planar=True)),
    ('.npy', 'small', dict(channels=2, dtype=np.int64))])
def test_channels_and_bits_are_lost_or_normalised_together(suffix, arch, settings, tmp_path):
    names = {f'{i}{suffix}': some_boxes(i) for i in range(5)}
    pixels = {name: deep(tmp_path / 'data' / name, seed=i, **settings)
              for i, name in enumerate(names)}
    coco(tmp_path / 'data/all.json', names, NAMES)
    cfg, report = made(tmp_path / 'data', arch=arch)
    channels, backbone = settings.get('channels', 1), cfg.model.backbone
    assert backbone.in_channels == channels and not serious(report)
    # Of few images the stem stays as published, unless its weights were adapted.
    assert ('frozen_stages' in backbone) == (arch == '0' and channels == 3)
    init_default_scope('mmdet')
    dataset = DATASETS.build({**cfg.val_dataloader.dataset, 'pipeline': cfg.test_pipeline[:1]})
    values = pixels[Path(dataset[0]['img_path']).name]
    assert np.array_equal(dataset[0]['img'].reshape(values.shape), values)
    from mmdet.registry import MODELS
    preprocessor = MODELS.build(cfg.model.data_preprocessor)
    import torch
    inputs = [torch.from_numpy(p.astype(np.float32)).permute(2, 0, 1) for p in pixels.values()]
    out = preprocessor(dict(inputs=inputs, data_samples=None))['inputs'][..., :64, :96]
    assert out.shape[1] == channels
    assert out.mean((0, 2, 3)).abs().max() < 0.1 and (out.std((0, 2, 3)) - 1).abs().max() < 0.1


def test_colour_is_read_as_ever_and_kinds_do_not_mix(tmp_path):
    paths, said = [], []
    for mode in ('L', 'P', 'RGB', 'RGBA'):
        paths.append(tmp_path / f'{mode}.png')
        picture(paths[-1], mode=mode)
    reading = choose_reading(paths, [], said)
    assert reading == ('LoadImageFromFile', '', 3, '') and len(said) == 1 and 'alpha' in said[0]
    assert choose_reading(paths[:1], [], [], all_channels=True).channels == 1
    assert choose_reading(paths[3:], [], [], all_channels=True).channels == 4
    deep(tmp_path / 'deep.png')
    with pytest.raises(DataError, match='deep.png'):
        choose_reading(paths, [tmp_path / 'deep.png'], [])


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
def test_invalid_ids_are_reported_and_renumbered(alter, tmp_path):
    boxes = coco_data(tmp_path / 'data')
    change(tmp_path / 'data/val.json', alter)
    assert check_annotations(tmp_path / 'data/val.json', tmp_path / 'data/val').problems
    cfg, report = made(tmp_path / 'data')
    assert not serious(report) and seen(cfg, 'val') == right(boxes['val'])
    written = json.loads((tmp_path / 'mine_data/val.json').read_text())
    assert not list(wrong_ids(written, ''))
    assert not (tmp_path / 'mine_data/train.json').exists()


def test_valid_ids_are_left_alone(tmp_path):
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


def test_keys_that_mmdet_needs_are_added(tmp_path):
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


def test_the_schedule_counts_only_images_trained_on(tmp_path):
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


def test_problems_name_the_users_own_files(tmp_path):
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


# --- which class is which ------------------------------------------------------------------------

def left_and_right(root, orders):
    """Red boxes to the left of blue ones; each folder has its own numbering."""
    for number, (folder, names) in enumerate(orders.items()):
        for i in range(2):
            boxes = [(names.index('red'), 10, 10, 20, 20), (names.index('blue'), 50, 30, 20, 20)]
            picture(root / folder / f'{i}.jpg', seed=2 * number + i)
            yolo(root / folder / f'{i}.txt', boxes)


def of_sides(root):
    data = find_boxes(root)
    return {name: {a['bbox'][0] < 40 for split in data.splits for n, _, a, _ in data.objects(split)
                   if n == name} for name in data.categories}


def test_labels_go_by_the_nearest_list_of_classes(tmp_path):
    orders = dict(train=NAMES, val=NAMES[::-1])
    left_and_right(tmp_path, orders)
    for folder, names in orders.items():
        text(tmp_path / folder / 'classes.txt', '\n'.join(names))
    text(tmp_path / 'predefined_classes.txt', 'dog\ncat\n')
    assert of_sides(tmp_path) == dict(red={True}, blue={False})


def test_lists_of_classes_that_differ_are_both_named(tmp_path):
    left_and_right(tmp_path, dict(train=NAMES))
    categories = [dict(id=str(NAMES.index(name)), name=name) for name in ('blue', 'red')]
    text(tmp_path / 'notes.json', json.dumps(dict(categories=categories)))
    assert of_sides(tmp_path) == dict(red={True}, blue={False})
    text(tmp_path / 'classes.txt', 'blue\nred\n')
    with pytest.raises(DataError, match='classes.txt has blue, red.*notes.json has red, blue'):
        find_boxes(tmp_path)


# --- names, lists and encodings ------------------------------------------------------------------

def test_lists_of_voc_may_name_image_and_annotation(tmp_path):
    for i in range(3):
        picture(tmp_path / f'JPEGImages/{i}.jpg', seed=i)
        voc(tmp_path / f'Annotations/{i}.xml', f'{i}.jpg', some_boxes(i), NAMES)
        text(tmp_path / f'ImageSets/Main/{("train", "val", "test")[i]}.txt',
             f'./JPEGImages/{i}.jpg ./Annotations/{i}.xml\n')
    data = find_boxes(tmp_path)
    assert {split: [i['file_name'] for i in found.content['images']] for split, found in
            data.splits.items()} == dict(train=['0.jpg'], val=['1.jpg'], test=['2.jpg'])


def test_xml_is_read_in_the_encoding_that_it_declares(tmp_path):
    for i, encoding in enumerate(('gb2312', 'utf-16')):
        picture(tmp_path / f'{i}.jpg', seed=i)
        path = tmp_path / f'{i}.xml'
        voc(path, f'{i}.jpg', [(0, 10, 10, 20, 20)], ['\u732b'])
        path.write_bytes((f'<?xml version="1.0" encoding="{encoding}"?>'
                          + path.read_text(encoding='utf-8')).encode(encoding))
    assert find_boxes(tmp_path).categories == ['\u732b']
    text(tmp_path / '0.xml', '<?xml version="1.0" encoding="klingon"?><annotation/>')
    with pytest.raises(DataError, match='0.xml'):
        find_boxes(tmp_path)


@pytest.mark.parametrize('there, said', [
    ('cafe\u0301.jpg', 'caf\u00e9.jpg'), ('my photo 50%.jpg', 'my%20photo%2050%25.jpg')])
def test_file_names_of_other_systems_are_matched(there, said, tmp_path):
    boxes = {said: some_boxes(1), '0.jpg': some_boxes(2)}
    for seed, name in enumerate((there, '0.jpg')):
        picture(tmp_path / 'data/images' / name, seed=seed)
    coco(tmp_path / 'data/a.json', boxes, NAMES)
    (kind, where), *_ = check_annotations(
        tmp_path / 'data/a.json', tmp_path / 'data/images').problems
    assert kind == 'annotated image that is missing' and where.startswith(
        f'data/a.json: {said}; there is {there}, for which')
    cfg, _ = made(tmp_path / 'data')
    assert {Path(dataset_of(cfg, split)[0]['img_path']).name
            for split in ('train', 'val')} == {there, '0.jpg'}
    yolo(tmp_path / 'yolo/labels' / f'{Path(said).stem}.txt', some_boxes(1))
    picture(tmp_path / 'yolo/images' / there)
    picture(tmp_path / 'yolo/images/0.jpg')
    yolo(tmp_path / 'yolo/labels/0.txt', some_boxes(1))
    found = sum(len(list(find_boxes(tmp_path / 'yolo').objects(s))) for s in ('train', 'val'))
    assert found == (6 if '%' not in said else 3)


@pytest.mark.parametrize('suffix, form', [('.jfif', 'JPEG'), ('.jpe', 'JPEG'), ('.gif', 'GIF')])
def test_images_that_opencv_reads_are_found(suffix, form, tmp_path):
    import cv2
    for i in range(2):
        picture(tmp_path / f'{i}{suffix}', seed=i, format=form)
        yolo(tmp_path / f'{i}.txt', some_boxes(i))
        assert cv2.imread(str(tmp_path / f'{i}{suffix}')).shape == (64, 96, 3)
    assert len(find_boxes(tmp_path).splits['train'].paths) == 1


def test_ignored_and_repeated_objects_are_reported(tmp_path):
    coco_data(tmp_path)

    def kinds():
        return [kind for kind, _ in check_annotations(
            tmp_path / 'train.json', tmp_path / 'train').problems]
    assert kinds() == []
    change(tmp_path / 'train.json', lambda c: c['annotations'].append(
        dict(c['annotations'][0], id=99)))
    assert kinds() == ['same box twice']
    change(tmp_path / 'train.json', lambda c: [a.update(iscrowd=1) for a in c['annotations']])
    assert 'only ignored objects' in kinds()
