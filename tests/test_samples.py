"""Stand-ins have the layout of the real samples, and are used only without them."""
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from fastervit_mm.datasets.checking import check_coco, check_label_maps
from fastervit_mm.datasets.images import read_image
from tests import samples


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    root = tmp_path_factory.mktemp('tiny_coco')
    samples.draw_coco(root, num_images=32)
    return root


@pytest.fixture(scope='module')
def ade20k(tmp_path_factory):
    root = tmp_path_factory.mktemp('ade20k_tiny')
    samples.draw_ade20k(root, num_images=(8, 4))
    return root


@pytest.mark.parametrize('split, empty', [('train2017', 1), ('val2017', 2)])
def test_a_stand_in_for_coco_is_read_as_coco_is(split, empty, coco):
    file = coco / f'annotations/instances_{split}.json'
    content = json.loads(file.read_text())
    sizes = {path.name: read_image(path).size for path in (coco / split).iterdir()}
    assert list(check_coco(content, sizes, file.name, num_classes=80)) == []
    assert len(sizes) == 32 and len(set(sizes.values())) >= 5
    read = COCO(str(file))
    assert sum(not read.getAnnIds(image) for image in read.getImgIds()) == empty
    assert [image['id'] for image in content['images']] != sorted(read.getImgIds())
    crowds = read.loadAnns(read.getAnnIds(iscrowd=True))
    others = read.loadAnns(read.getAnnIds(iscrowd=False))
    assert crowds and all(isinstance(a['segmentation']['counts'], list) for a in crowds)
    assert all(isinstance(polygon, list) for a in others for polygon in a['segmentation'])
    small = [a['area'] < 32**2 for a in others]
    assert 0.2 < np.mean(small) < 0.8 and len({a['category_id'] for a in others}) > 40
    for annotation in crowds + others:
        mask = read.annToMask(annotation)
        # Polygons fill the holes that objects before them leave; run lengths are exact.
        assert mask.sum() >= 0.9 * annotation['area'] - 10
        assert not annotation['iscrowd'] or mask.sum() == annotation['area']
        left, top, width, height = annotation['bbox']
        outside = mask.copy()
        outside[top:top + height, left:left + width] = 0
        assert not outside.any()


@pytest.mark.parametrize('split', ['training', 'validation'])
def test_a_stand_in_for_ade20k_is_read_as_ade20k_is(split, ade20k):
    found, sizes = set(), []
    for path in sorted((ade20k / f'images/{split}').iterdir()):
        sizes.append(read_image(path).size)
        labels = ade20k / f'annotations/{split}/{path.stem}.png'
        values = np.unique(Image.open(labels))
        assert values[0] == 0 and len(values) > 2  # other, a ground and an object at least
        found |= set(values.tolist())
    assert len(found) > 10 and max(found) > 75
    assert max(max(size) for size in sizes) == 512
    problems = check_label_maps(ade20k / f'annotations/{split}', ade20k / f'images/{split}', 150,
                                reduce_zero_label=True).problems
    assert {kind for kind, _ in problems} == {'label that never occurs'}
    assert all(one != other for one, other in pairwise(sizes))


@pytest.mark.parametrize('name', ['tiny_coco', 'ade20k_tiny'])
def test_the_layout_is_that_of_the_real_sample(name, tmp_path, monkeypatch):
    real = samples.find(name)
    if real is None:
        pytest.skip(f'no real {name} to compare with; name its folder in {samples.VARIABLE}')
    monkeypatch.setattr(samples, 'find', lambda name: None)
    drawn = samples.get(name, tmp_path)

    def layout(root):
        folders = [path for path in root.rglob('*') if path.is_dir()]
        return {str(folder.relative_to(root)): sorted(
            f'{len(path.name)}{path.suffix}' for path in folder.iterdir() if path.is_file())
            for folder in folders}

    assert layout(drawn) == layout(real)
    if name == 'tiny_coco':
        contents = [json.loads((root / 'annotations/instances_val2017.json').read_text())
                    for root in (drawn, real)]
        ours, theirs = ([(c['id'], c['name']) for c in content['categories']]
                        for content in contents)
        assert ours == theirs
        for part in ('images', 'annotations'):
            assert contents[0][part][0].keys() <= contents[1][part][0].keys()


def test_a_stand_in_is_always_the_same(tmp_path):
    for draw in (lambda root: samples.draw_coco(root, 3),
                 lambda root: samples.draw_ade20k(root, (2, 1))):
        roots = [tmp_path / f'{draw.__code__.co_firstlineno}_{turn}' for turn in range(2)]
        for root in roots:
            root.mkdir()
            draw(root)
        one, other = ({str(path.relative_to(root)): path.read_bytes()
                       for path in root.rglob('*.*')} for root in roots)
        assert one == other and len(one) >= 6


def test_concurrent_requests_get_the_same_complete_stand_in(tmp_path, monkeypatch):
    drawn, draw_coco = [], samples.draw_coco

    def draw(root):
        drawn.append(root)
        draw_coco(root, 4)

    monkeypatch.setattr(samples, 'draw_coco', draw)
    monkeypatch.setattr(samples, 'find', lambda name: None)
    with ThreadPoolExecutor(4) as pool:
        roots = list(pool.map(lambda _: samples.get('tiny_coco', tmp_path), range(4)))
    assert len(drawn) == 1 and set(roots) == {tmp_path / 'tiny_coco'}
    assert len(list(roots[0].glob('*/*.jpg'))) == 8
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ['tiny_coco']


def test_real_samples_are_preferred(tmp_path, monkeypatch):
    monkeypatch.delenv(samples.VARIABLE, raising=False)
    monkeypatch.delenv('CI', raising=False)
    monkeypatch.setattr(samples, 'BESIDE', tmp_path / 'beside')
    assert samples.find('tiny_coco') is None and 'stand-ins' in samples.describe()
    monkeypatch.setenv('CI', 'true')
    with pytest.raises(pytest.fail.Exception, match='CI=true and no real samples: there is no '
                                                    f'{tmp_path}/beside/tiny_coco'):
        samples.find('tiny_coco')
    (tmp_path / 'beside/tiny_coco').mkdir(parents=True)
    (tmp_path / 'named/tiny_coco').mkdir(parents=True)
    assert samples.find('tiny_coco') == tmp_path / 'beside/tiny_coco'
    monkeypatch.setenv(samples.VARIABLE, str(tmp_path / 'named'))
    assert samples.find('tiny_coco') == tmp_path / 'named/tiny_coco'
    assert samples.describe() == f'real images in {tmp_path}/named'
    monkeypatch.delenv('CI')
    with pytest.raises(pytest.fail.Exception, match='no ade20k_tiny in it'):
        samples.find('ade20k_tiny')  # a folder that is named has to hold it
