"""tools/prepare_data.py check: problems of a user's annotations and label maps."""
import copy
import json
import runpy
import sys

import mmcv
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils
from rich.console import Console

from fastervit_mm.datasets.checking import (
    check_annotations,
    check_label_maps,
    images_in_both,
    is_note,
    print_annotations,
    print_label_maps,
    reading,
)
from fastervit_mm.datasets.checking.masks import _decompressed
from fastervit_mm.datasets.folders import DataError
from fastervit_mm.datasets.images import read_image
from tests.conftest import REPO

WIDTH, HEIGHT = 60, 40


def write_image(path, seed=0, size=(WIDTH, HEIGHT), **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 255, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, **settings)


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return dict(exif=exif)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


def run_lengths(compressed=True, size=(HEIGHT, WIDTH)):
    mask = np.zeros(size, np.uint8, order='F')
    mask[10:20, 10:30] = 1
    rle = mask_utils.encode(mask)
    if compressed:
        return dict(size=list(size), counts=rle['counts'].decode())
    flat = np.flatnonzero(np.diff(np.r_[0, mask.ravel(order='F'), 0])).tolist()
    return dict(size=list(size), counts=np.diff([0, *flat, mask.size]).tolist())


POLYGON = [10, 10, 30, 10, 30, 20]


@pytest.fixture
def mine(tmp_path):
    """Three images in subfolders, two categories, four boxes with masks in every format."""
    class Mine:
        ann_file, images = tmp_path / 'annotations/train.json', tmp_path / 'train'
        content = dict(
            images=[dict(id=i, file_name=f'a/{i}.jpg', width=WIDTH, height=HEIGHT)
                    for i in (1, 2, 3)],
            categories=[dict(id=1, name='cup'), dict(id=4, name='book')],
            annotations=[dict(id=i, image_id=(1, 1, 2, 3)[i - 1], category_id=(1, 4, 1, 1)[i - 1],
                              bbox=[10, 10, 20 + 4 * i, 10], area=200, iscrowd=0, segmentation=s)
                         for i, s in enumerate(([POLYGON], [POLYGON, POLYGON], run_lengths(),
                                                run_lengths(False)), 1)])

        def change(self, part, index=0, **values):
            entry = self.content[part][index]
            entry.update(values)
            for key in [k for k, v in entry.items() if v is Ellipsis]:
                del entry[key]

        def check(self):
            self.ann_file.parent.mkdir(exist_ok=True)
            self.ann_file.write_text(json.dumps(self.content))
            return check_annotations(self.ann_file, self.images)

        def kinds(self):
            return [kind for kind, _ in self.check().problems]

    for i in (1, 2, 3):
        write_image(tmp_path / f'train/a/{i}.jpg', i)
    return Mine()


def test_annotations_without_fault_and_what_is_in_them(mine):
    found = mine.check()
    assert found.problems == []
    assert found[1:5] == (3, 0, 4, 4)
    assert found.categories == (('cup', 3, (32, 10)), ('book', 1, (28, 10)))
    assert found.files == {f'a/{i}.jpg': mine.images / f'a/{i}.jpg' for i in (1, 2, 3)}


@pytest.mark.parametrize('part, values, kinds', [
    ('images', dict(file_name='a/9.jpg'), ['annotated image that is missing', 'not annotated']),
    ('images', dict(width=50), ['image of another size than annotated']),
    ('images', dict(id=2), ['annotation without an image'] * 2 + ['image id given twice']),
    ('images', dict(file_name='a/2.jpg'), ['image listed twice', 'not annotated']),
    ('images', dict(width=..., height=...), ['keys missing']),
    ('images', dict(file_name=7), ['malformed entry'] + ['annotation without an image'] * 2
     + ['not annotated']),
    ('categories', dict(id=4), ['annotation without a category'] * 3
     + ['category id given twice']),
    ('categories', dict(name='book'), ['category name given twice']),
    ('categories', dict(name=...), ['annotation without a category'] * 3 + ['keys missing']),
    ('annotations', dict(image_id=8), ['annotation without an image']),
    ('annotations', dict(category_id=8), ['annotation without a category']),
    ('annotations', dict(id=2), ['annotation id given twice']),
    ('annotations', dict(id=0), ['annotation id 0']),
    ('annotations', dict(bbox=...), ['keys missing']),
    ('annotations', dict(iscrowd=..., area=...), ['keys missing']),
    ('annotations', dict(bbox=[1, 2, 3]), ['malformed entry']),
    ('annotations', dict(bbox=[1, 2, 3, '4']), ['malformed entry']),
    ('annotations', dict(bbox=[1, 2, 3, float('nan')]), ['malformed entry']),
    ('annotations', dict(id=[1]), ['malformed entry']),
    ('annotations', dict(bbox=[50, 0, 20, 5]), ['box outside its image']),
    ('annotations', dict(bbox=[0, HEIGHT - 5, 5, 20]), ['box outside its image']),
    ('annotations', dict(bbox=[50, 0, 0, 5]), ['no area']),
    ('annotations', dict(bbox=[50, 0, 0.5, 5]), ['box smaller than a pixel']),
    ('annotations', dict(area=0), ['area of 0, though the box has one']),
    ('annotations', dict(segmentation=...), ['segmentation missing, others have one']),
    ('annotations', dict(segmentation=[]), ['empty segmentation']),
    ('annotations', dict(segmentation='a.png'), ['malformed segmentation']),
    ('annotations', dict(segmentation=POLYGON), ['malformed segmentation']),
    ('annotations', dict(segmentation=[[1, 2, 3, 4]]), ['polygon with fewer than 6 numbers']),
    ('annotations', dict(segmentation=[[]]), ['polygon with fewer than 6 numbers']),
    ('annotations', dict(segmentation=[[*POLYGON, 3]]), ['polygon with an odd count of numbers']),
    ('annotations', dict(segmentation=[[*POLYGON, 62, 41]]), []),  # rounding
    ('annotations', dict(segmentation=[[*POLYGON, 70, 20]]), ['polygon outside its image']),
    ('annotations', dict(segmentation=[[*POLYGON, 20, -9]]), ['polygon outside its image']),
    ('annotations', dict(segmentation=run_lengths(size=(WIDTH, HEIGHT))),
     ['run lengths of another size than the image']),
    ('annotations', dict(segmentation=run_lengths(False, size=(HEIGHT, 50))),
     ['run lengths of another size than the image']),
    ('annotations', dict(segmentation=dict(run_lengths(), counts='me;4j75J5N1N1N')),
     ['run lengths that cannot be decoded']),
    ('annotations', dict(segmentation=dict(run_lengths(), counts='m e')),
     ['run lengths that cannot be decoded']),
    ('annotations', dict(segmentation=dict(run_lengths(), counts=[10, 20])),
     ['run lengths that cannot be decoded']),
    ('annotations', dict(segmentation=dict(run_lengths(), counts=[WIDTH * HEIGHT])),
     ['empty segmentation']),
    ('annotations', dict(segmentation=dict(counts=[WIDTH * HEIGHT])), ['malformed segmentation']),
])
def test_every_kind_of_fault_in_an_annotation_file(part, values, kinds, mine):
    mine.change(part, **values)
    assert sorted(mine.kinds()) == sorted(kinds)


def test_boxes_alone_need_no_masks(mine):
    for i, segmentation in enumerate(([], None, [], [])):
        mine.change('annotations', i, segmentation=... if segmentation is None else segmentation)
    assert mine.check().problems == [] and mine.check().masks == 0


def test_harmless_findings_are_notes(mine):
    mine.content['annotations'] = []
    assert mine.kinds() == ['annotation file without any annotation']
    mine.content['categories'].append(dict(id=9, name='pen'))
    mine.content['annotations'] = [dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 5, 5],
                                        area=25, iscrowd=0)]
    write_image(mine.images / 'a/extra.png')
    write_image(mine.images / 'elsewhere/extra.png')  # of another split, for instance
    (mine.images / 'a/notes.txt').write_text('')
    found = mine.check()
    assert found.problems == [
        ('not annotated', 'a/extra.png is not in annotations/train.json'),
        ('category without any annotation', 'annotations/train.json: book'),
        ('category without any annotation', 'annotations/train.json: pen')]
    assert all(is_note(kind) for kind, _ in found.problems) and found.empty == 2
    assert not is_note('box outside its image')


def test_boxes_in_another_format_are_reported(mine, said):
    mine.content['annotations'] = [
        dict(id=i, image_id=1, category_id=1, bbox=[5 * i, 4 * i, 5 * i + 9, 4 * i + 9], area=81,
             iscrowd=0) for i in range(1, 8)]
    assert 'boxes that may be [left, top, right, bottom]' in mine.kinds()
    mine.change('categories', name='[/b]')  # no markup for the console
    assert not print_annotations([str(mine.ann_file)], [str(mine.images)], console=said)
    assert 'boxes that may be [left, top, right, bottom]: 1' in said.said()
    assert 'COCO has [left, top, width, height]' in said.said()
    mine.check()
    assert not print_annotations([str(mine.ann_file)], [str(mine.images)], console=said)
    assert '[/b]' in said.said()
    for annotation in mine.content['annotations']:
        annotation['bbox'] = [0.1, 0.2, 0.3, 0.4]
    assert 'boxes in parts of the image, not in pixels' in mine.kinds()


@pytest.mark.parametrize('text, said', [
    ('{"images": [', 'Expecting value'), ('[]', 'no list images, categories, annotations'),
    ('{"images": [], "annotations": []}', 'no list categories')])
def test_a_malformed_file_and_its_damaged_images_are_reported_together(text, said, mine):
    mine.check()
    mine.ann_file.write_text(text)
    cut_short(mine.images / 'a/2.jpg')
    (kind, where), (other, place) = check_annotations(mine.ann_file, mine.images).problems
    assert kind == 'unreadable annotation file' and said in where
    assert other == 'unreadable image' and place.startswith('a/2.jpg: ')


def test_images_are_read_to_their_end_and_found_by_other_names(mine):
    cut_short(mine.images / 'a/2.jpg')
    mine.change('images', 2, file_name='b\\3.JPG')
    problems = dict(mine.check().problems)
    assert 'truncated' in problems['unreadable image']
    assert 'b\\3.JPG; there is a/3.jpg' in problems['annotated image that is missing']


@pytest.mark.parametrize('suffix', ['jpg', 'png'])
@pytest.mark.parametrize('orientation', [1, 3, 6, 8])
def test_sizes_are_those_that_mmcv_reads(orientation, suffix, tmp_path):
    write_image(tmp_path / f'a.{suffix}', **turned(orientation))
    height, width = mmcv.imread(str(tmp_path / f'a.{suffix}')).shape[:2]
    assert read_image(tmp_path / f'a.{suffix}').size == (width, height)


def test_images_turned_by_exif(mine):
    write_image(mine.images / 'a/1.jpg', **turned(6))
    (kind, where), = mine.check().problems
    assert kind == 'image of another size than annotated'
    assert where == ('a/1.jpg: (40, 60), annotations/train.json says (60, 40); mmcv turns it by '
                     'its EXIF tag')
    write_image(mine.images / 'a/1.jpg', size=(HEIGHT, WIDTH), **turned(6))
    assert mine.check().problems == [('image turned by its EXIF tag', 'a/1.jpg: orientation 6')]


def test_run_lengths_are_decompressed_as_by_pycocotools():
    random = np.random.RandomState(0)
    for _ in range(20):
        mask = np.asfortranarray(random.rand(30, 50) < random.rand(), np.uint8)
        counts = _decompressed(mask_utils.encode(mask)['counts'].decode())
        assert sum(counts) == mask.size
        values = np.repeat(np.arange(len(counts)) % 2, counts)
        assert (values.reshape(mask.shape, order='F') == mask).all()


def test_an_image_in_two_splits_is_found_by_its_bytes(mine, tmp_path, said):
    mine.check()
    content = copy.deepcopy(mine.content)
    val = tmp_path / 'val'
    for i, seed in ((1, 11), (2, 12), (3, 1)):  # the third is the first of training
        write_image(val / f'a/{i}.jpg', seed)
    content['categories'].pop()
    content['annotations'].pop(1)
    (tmp_path / 'val.json').write_text(json.dumps(content))
    pairs = [str(mine.ann_file), str(tmp_path / 'val.json')], [str(mine.images), str(val)]
    assert not print_annotations(*pairs, console=said)
    assert 'image in both splits: 1' in said.said() and '1 problems.' in said.said()
    assert f'{mine.images}/a/1.jpg = {val}/a/3.jpg' in said.said()
    assert 'note: category that another file lacks: 1' in said.said() and ': no book' in said.said()
    # One folder of images for all splits is usual.
    assert len(list(images_in_both([mine.check().files] * 2))) == 3


@pytest.fixture
def said():
    console = Console(record=True, width=300, quiet=False, force_terminal=False)
    console.said = lambda: console.export_text(clear=False)
    return console


def write_labels(path, labels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(labels), mode).save(path)


def stripes(*labels, dtype=np.uint8, size=(WIDTH, HEIGHT)):
    """Labels side by side, with equally many pixels if their number divides the width."""
    row = np.repeat(np.array(labels, dtype), size[0] // len(labels))
    return np.tile(row, (size[1], 1))


@pytest.fixture
def maps(tmp_path):
    """Three images in subfolders and their label maps."""
    class Maps:
        labels, images = tmp_path / 'annotations/training', tmp_path / 'images/training'

        def check(self, **settings):
            return check_label_maps(self.labels, self.images, **settings)

        def problems(self, **settings):
            return self.check(**settings).problems

        def kinds(self, **settings):
            return [kind for kind, _ in self.problems(**settings)]

        def all(self, labels):
            for i in range(3):
                write_labels(self.labels / f'a/{i}.png', labels)

    for i in range(3):
        write_image(tmp_path / f'images/training/a/{i}.jpg', i)
        write_labels(tmp_path / f'annotations/training/a/{i}.png',
                     stripes(0, 1, 2, 255) if i else stripes(0, 1))
    return Maps()


def test_label_maps_without_fault_and_what_is_in_them(maps):
    with reading(Console(quiet=True)) as run:
        found = maps.check(num_classes=3, run=run)
    assert found.problems == [] and maps.problems() == []
    assert (found.images, found.maps) == (3, 3)
    assert [(label, round(share, 3), images) for label, share, images in found.labels] == [
        (0, 0.333, 3), (1, 0.333, 3), (2, 0.167, 2), (255, 0.167, 2)]


def test_every_kind_of_fault_in_a_label_map(maps):
    for i in range(3, 11):
        write_image(maps.images / f'a/{i}.jpg', i)
    write_labels(maps.labels / 'a/11.png', stripes(0, 1, 2))
    write_labels(maps.labels / 'a/4.png', stripes(0, 1, size=(HEIGHT, WIDTH)))
    write_labels(maps.labels / 'a/5.png', np.stack([stripes(0, 1)] + [stripes(0, 9)] * 2, 2))
    write_labels(maps.labels / 'a/6.png', stripes(0, 7))
    write_labels(maps.labels / 'a/7.png', stripes(0, 1000, dtype=np.uint16))
    write_labels(maps.labels / 'a/8.png', stripes(255))
    write_labels(maps.labels / 'a/9.png', stripes(0, 1, 2))
    cut_short(maps.labels / 'a/9.png')
    palette = Image.fromarray(stripes(0, 1, 2))
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(maps.labels / 'a/10.png')
    cut_short(maps.images / 'a/1.jpg')
    problems = maps.problems(num_classes=3)
    assert [(kind, where.split(':')[0]) for kind, where in problems] == [
        ('image without a label map', 'training/a/3.jpg'),
        ('label map without an image', 'training/a/11.png'), ('unreadable image', 'a/1.jpg'),
        ('palette label map', 'training/a/10.png'),
        ('label map of another size than its image', 'training/a/4.png'),
        ('label map that is a colour image', 'training/a/5.png'),
        ('label out of range', 'training/a/6.png'), ('label out of range', 'training/a/7.png'),
        ('label map that is all void', 'training/a/8.png'),
        ('unreadable label map', 'training/a/9.png')]
    assert problems[6][1].endswith('[7], labels are 0 to 2 and 255')
    assert [kind for kind in maps.kinds() if 'range' in kind] == ['label out of range']  # 1000


@pytest.mark.parametrize('labels, settings, kind, said', [
    ((0, 255), {}, 'mask whose object is void', 'Write 1 for the object'),
    ((0, 255), dict(void=254), 'label that never occurs', ', 6 and 247 more of 0 to 255'),
    ((1, 2, 3), {}, 'labels start at 1', 'reduce_zero_label makes 1 the first'),
    ((0, 2, 5), {}, 'label that never occurs', ': 1, 3, 4 of 0 to 5'),
    ((0, 1), dict(num_classes=4), 'label that never occurs', ': 2, 3 of 0 to 3'),
    ((0, 1, 2, 3), dict(num_classes=3), 'label out of range',
     '[3], labels are 0 to 2 and 255; if 0 is unlabelled and classes count from 1'),
    ((0, 1, 2, 3), dict(num_classes=3, reduce_zero_label=True), None, ''),
    ((0, 2, 3), dict(num_classes=3, reduce_zero_label=True), 'label that never occurs',
     ': 1 of 1 to 3'),
    ((0, 1, 2, 3, 4), dict(num_classes=3, reduce_zero_label=True), 'label out of range',
     '[4], labels are 0 to 3 and 255'),
    ((0, 1, 11), dict(num_classes=2, void=11), None, ''),
    ((0,), {}, 'fewer than two labels', 'only 0'),
])
def test_traps_that_only_all_label_maps_show(labels, settings, kind, said, maps):
    maps.all(stripes(*labels))
    problems = maps.problems(**settings)
    assert {kind for kind, _ in problems} == ({kind} if kind else set())
    assert not kind or said in problems[0][1]
    assert is_note('labels start at 1') and not is_note('mask whose object is void')


def test_lossy_label_maps_are_reported(maps):
    for i in range(3):
        Image.fromarray(stripes(0, 1, 2)).save(maps.labels / f'a/{i}.jpg')
    assert 'label map saved as JPEG' in maps.kinds(map_suffix='.jpg')
    assert maps.problems() == []  # the PNG of the same names are meant


def test_suffixes_of_images_and_label_maps(maps):
    for i in range(3):
        (maps.labels / f'a/{i}.png').rename(maps.labels / f'a/{i}_mask.png')
    assert maps.check().ends == [('.jpg', '_mask.png')] and maps.problems() == []
    assert maps.problems(map_suffix='_mask.png') == []
    write_image(maps.images / 'a/2.png')
    assert maps.problems(img_suffix='.jpg') == []
    with pytest.raises(DataError, match='which to take: --img-suffix .jpg or --img-suffix .png'):
        maps.check()
    (maps.images / 'a/2.jpg').unlink()
    assert maps.problems() == [
        ('names with several endings', 'annotations/training: 2 of .jpg and _mask.png, 1 of .png '
         'and _mask.png; mmseg reads one. tools/new_config.py seg takes all')]
    (maps.images / 'a/2.png').rename(maps.images / 'a/2.jpg')
    # All in one folder.
    for path in (maps.labels / 'a').iterdir():
        path.rename(maps.images / f'a/{path.name}')
    assert check_label_maps(maps.images, maps.images).problems == []


def test_an_image_that_exif_turns_and_its_label_map(maps):
    write_image(maps.images / 'a/1.jpg', **turned(6))
    assert maps.kinds() == ['image turned by its EXIF tag',
                            'label map of another size than its image']


def test_label_maps_are_printed(maps, said):
    assert print_label_maps([str(maps.labels)] * 2, [str(maps.images)] * 2, console=said,
                            num_classes=3) is False
    assert 'image in both splits: 3' in said.said() and '3 problems.' in said.said()
    assert '255 void' in said.said() and '33.33%' in said.said()


@pytest.fixture
def tool(monkeypatch, capsys):
    """Exit status and output of the tool."""
    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['prepare_data.py', *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(REPO / 'tools/prepare_data.py'), run_name='__main__')
        said, code = capsys.readouterr(), stopped.value.code
        # Python prints a message that is given as status, and exits with 1.
        return (1, code) if isinstance(code, str) else (int(code), said.out + said.err)
    return run


def test_the_tool_and_its_exit_status(mine, maps, tool):
    mine.check()
    arguments = ['check', '--ann', mine.ann_file, '--images', mine.images]
    code, output = tool(*arguments)
    assert code == 0 and 'No problem.' in output and '32 x 10' in output
    cut_short(mine.images / 'a/2.jpg')
    code, output = tool(*arguments)
    assert code == 1 and 'problem: unreadable image: 1' in output and '1 problems.' in output
    arguments = ['check', '--label-maps', maps.labels, '--images', maps.images]
    code, output = tool(*arguments)
    assert code == 0 and '33.33%' in output
    assert tool(*arguments, '--num-classes', 2)[0] == 1
    assert tool(*arguments, '--num-classes', 2, '--void', 2)[0] == 1  # 255 is then out of range


def test_bad_arguments_are_errors_of_one_line_that_name_them(mine, maps, tool):
    mine.check()
    ann, images = ['--ann', mine.ann_file], ['--images', mine.images]
    for arguments, message in (
            ([*ann, '--images', 'nowhere'], 'prepare_data: --images nowhere: no such folder'),
            (['--ann', 'no.json', *images], 'prepare_data: --ann no.json: no such file'),
            (['--label-maps', 'nowhere', *images], '--label-maps nowhere: no such folder'),
            ([*ann, *images, mine.images], '--ann names 1 and --images 2;'),
            (['--label-maps', maps.labels, *images, '--num-classes', 0], 'num_classes=0: give 1'),
            (['--label-maps', maps.labels, *images, '--map-suffix', '.bmp'], 'ends in .bmp'),
            (['--label-maps', maps.labels, *images, '--img-suffix', '.bmp'], 'ends in .bmp')):
        code, output = tool('check', *arguments)
        assert code == 1 and message in output and '\n' not in output, output
    for arguments, message in (
            (['check', *ann], 'required: --images'), (['check', *images], '--ann --label-maps'),
            (['check', *ann, *images, '--num-classes', 3], 'are for --label-maps'),
            (['check', *ann, *images, '--root', 'a'], 'unrecognized arguments: --root'),
            (['coco', *ann], 'required: --root'),
            (['coco', '--root', 'a', *ann], 'unrecognized arguments: --ann')):
        code, output = tool(*arguments)
        assert code == 2 and message in output, output


@pytest.mark.parametrize('call, message', [
    (lambda mine: check_annotations('no.json', mine.images), "ann_file='no.json': no such file"),
    (lambda mine: check_annotations(mine.ann_file, 'no'), "images='no': no such folder"),
    (lambda mine: check_label_maps('no', mine.images), "label_maps='no': no such folder"),
    (lambda mine: check_label_maps(mine.images, mine.images, void=-1), 'void=-1: give 0 to 255')])
def test_arguments_of_the_functions(call, message, mine):
    mine.check()
    with pytest.raises((OSError, ValueError), match=message):
        call(mine)
