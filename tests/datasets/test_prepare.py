"""tools/prepare_data.py: missing data and their downloads, and problems of existing data."""
import json
import shutil
import zipfile

import cv2
import numpy as np
import pytest
from rich.console import Console

from benchmarks.shapes import make_shapes
from fastervit_mm.datasets import prepare as module
from fastervit_mm.datasets.checking import check_coco
from fastervit_mm.datasets.prepare import DATA_SETS, prepare
from tests.running import run_tool


@pytest.fixture
def said():
    """A console that records its output, a line each."""
    console = Console(record=True, width=300, quiet=False, force_terminal=False)
    console.said = lambda: console.export_text(clear=False)
    return console


def tool(*arguments, cwd):
    done = run_tool('prepare_data.py', *arguments, cwd=cwd)
    return done.returncode, done.output


@pytest.mark.parametrize('name', ['coco', 'ade20k'])
def test_missing_data_are_named_with_the_download(name, tmp_path, said):
    assert not prepare(name, str(tmp_path / 'data'), console=said)
    for archive in DATA_SETS[name].archives:
        assert archive.address in said.said() and archive.size in said.said()
        assert f'-o {tmp_path}/data/{archive.name}' in said.said()
    for split in DATA_SETS[name].splits:
        assert f'{tmp_path}/data/{split.images}/' in said.said()
    assert not (tmp_path / 'data').exists()  # asking changes nothing


def zipped(folder, target, prefix=''):
    with zipfile.ZipFile(target, 'w') as file:
        for path in sorted(folder.rglob('*')):
            file.write(path, prefix + str(path.relative_to(folder)))


def test_downloads_are_unpacked_into_cocos_layout(tiny_coco, tmp_path, said):
    root = tmp_path / 'coco'
    root.mkdir()
    for part in ('train2017', 'val2017'):
        zipped(tiny_coco / part, root / f'{part}.zip', f'{part}/')
    assert not prepare('coco', str(root), console=said)
    assert 'annotations_trainval2017.zip' in said.said()
    # The last one lies beside the folder, where a browser may have put it.
    zipped(tiny_coco / 'annotations', tmp_path / 'annotations_trainval2017.zip', 'annotations/')
    assert prepare('coco', str(root), console=said)
    for path in tiny_coco.rglob('*.j*'):
        assert (root / path.relative_to(tiny_coco)).read_bytes() == path.read_bytes()
    assert sorted(p.name for p in root.iterdir()) == [
        'annotations', 'train2017', 'train2017.zip', 'val2017', 'val2017.zip']


def test_ade20ks_own_folder_becomes_the_data_root(tiny_ade20k, tmp_path, said):
    root = tmp_path / 'ade/ADEChallengeData2016'
    root.mkdir(parents=True)
    zipped(tiny_ade20k, root.parent / 'ADEChallengeData2016.zip', 'ADEChallengeData2016/')
    assert prepare('ade20k', str(root), console=said)
    assert len(list((root / 'annotations/training').iterdir())) == 100
    assert not (root / 'ADEChallengeData2016').exists()


def test_a_download_cut_short_leaves_nothing_behind(tiny_coco, tmp_path, said):
    zipped(tiny_coco / 'val2017', tmp_path / 'val2017.zip', 'val2017/')
    whole = (tmp_path / 'val2017.zip').read_bytes()
    (tmp_path / 'val2017.zip').write_bytes(whole[:len(whole) // 2])
    assert not prepare('coco', str(tmp_path), console=said)
    assert 'truncated or damaged' in said.said() and '778 MB published' in said.said()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    (tmp_path / 'val2017.zip').write_bytes(damaged)
    assert not prepare('coco', str(tmp_path), console=said)
    assert said.said().count('truncated or damaged') == 2
    assert [p.name for p in tmp_path.iterdir()] == ['val2017.zip']


def test_an_archive_with_other_contents_is_named(tmp_path, said):
    (tmp_path / 'other').mkdir()
    (tmp_path / 'other/cat.jpg').write_bytes(b'')
    zipped(tmp_path / 'other', tmp_path / 'val2017.zip')
    assert not prepare('coco', str(tmp_path), console=said)
    assert 'contains no val2017' in said.said()


@pytest.mark.parametrize('name', ['coco', 'ade20k'])
def test_samples_have_no_problem_except_their_number(name, tiny_coco, tiny_ade20k, tmp_path):
    root = dict(coco=tiny_coco, ade20k=tiny_ade20k)[name]
    code, output = tool(name, '--root', root, '--check', cwd=tmp_path)
    assert code == 1
    counts = {'coco': 4, 'ade20k': 2}[name]
    assert f'{counts} problems.' in output
    assert output.count('differs from the published: 2') == counts // 2
    for number in {'coco': ('118287', '860001', '5000', '36781'),
                   'ade20k': ('20210', '2000')}[name]:
        assert number in output


def test_boxes_and_label_maps_of_one_dataset_are_checked(tmp_path, monkeypatch, said):
    counts = dict(train=12, val=6)
    monkeypatch.setitem(DATA_SETS, 'shapes', module.DataSet('The shapes', (), tuple(
        module.Split(name, name, count, f'annotations/instances_{name}.json', None,
                     f'labels/{name}') for name, count in counts.items()), 4))
    root = make_shapes(tmp_path / 'shapes', **counts)
    assert prepare('shapes', str(root), check=True, console=said)
    assert 'No problem.' in said.said()
    # And broken in every way at once.
    (root / 'train/000001.png').write_bytes((root / 'train/000001.png').read_bytes()[:3000])
    (root / 'labels/train/000002.png').unlink()
    cv2.imwrite(str(root / 'labels/val/000001.png'), np.full((160, 160), 9, np.uint8))
    shutil.copy(root / 'val/000002.png', root / 'labels/val/000002.png')
    path = root / 'annotations/instances_val.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['image_id'] = 999
    content['annotations'][1]['bbox'] = [150, 150, 30, 5]
    content['annotations'][2]['category_id'] = 7
    path.write_text(json.dumps(content))
    (root / 'annotations/instances_train.json').write_text('{"images": [')
    assert not prepare('shapes', str(root), check=True, console=said)
    for problem in ('unreadable image: 1', 'image without a label map: 1', 'label out of range: 1',
                    'label map that is a colour image: 1', 'annotation without an image: 1',
                    'box outside its image: 1', 'annotation without a category: 1',
                    'unreadable annotation file: 1', '8 problems.'):
        assert problem in said.said(), problem
    assert '[150, 150, 30, 5] in 160 x 160 (0000' in said.said()


def test_the_number_of_categories_is_compared(tiny_coco):
    content = json.loads((tiny_coco / 'annotations/instances_val2017.json').read_text())
    sizes = {image['file_name']: (image['width'], image['height']) for image in content['images']}
    assert not list(check_coco(content, sizes, 'a.json', 80))
    assert [kind for kind, _ in check_coco(content, sizes, 'a.json', 81)] == [
        'number of categories differs from the published']


def test_flags_and_exit_status(tmp_path):
    code, output = tool('coco', '--help', cwd=tmp_path)
    assert code == 0 and '--root' in output and '--check' in output
    assert tool('coco', '--root', 'nowhere', cwd=tmp_path)[0] == 1
    assert tool('imagenet', '--root', 'nowhere', cwd=tmp_path)[0] == 1
    assert tool('cityscapes', '--root', 'nowhere', cwd=tmp_path)[0] == 2
