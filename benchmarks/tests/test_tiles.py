"""Tiles beside one pass, by a network that finds one object of a colour at a time."""
import json

import numpy as np
from PIL import Image

from tests.export.files import scene, write
from tests.running import run_tool


def test_objects_of_mosaics_are_counted_wrongly(tmp_path):
    images, annotations = [], []
    for i in range(5):  # one more than fill a mosaic
        box = [20 + i, 24, 36 + i, 40]
        Image.fromarray(scene(64, 64, red=box)).save(tmp_path / f'{i}.png')
        images.append(dict(id=i + 7, file_name=f'{i}.png', height=64, width=64))
        annotations.append(dict(id=i + 1, image_id=i + 7, category_id=1, iscrowd=0, area=256,
                                bbox=[*box[:2], 16, 16]))
    (tmp_path / 'found.json').write_text(json.dumps(dict(
        images=images, annotations=annotations, categories=[dict(id=1, name='red')])))
    model = write(tmp_path / 'finder.onnx', 'detection')
    done = run_tool('benchmarks.tiles', model, 'found.json', '.', '--grid', 2, 2, '--out', 'out',
                    cwd=tmp_path)
    assert done.returncode == 0, done.output
    report = json.loads((tmp_path / 'out/tiles.json').read_text())
    assert report['mosaics'] == [1, 128, 128, 3] and report['objects'] == 4
    assert {way: figures['found'] for way, figures in report['ways'].items()} == {
        'each image': 4, 'one pass': 0, 'tiles': 4}
    assert report['ways']['each image']['mAP'] == report['ways']['tiles']['recall'] == 1
    assert np.asarray(Image.open(tmp_path / 'out/tiles.jpg')).any() and report['lost'] == 0
