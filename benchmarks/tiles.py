"""Compare tiles with one pass, on mosaics of a COCO dataset's images.

Images are laid side by side, and their annotations with them. A detector in a file of
tools/export.py finds objects in each image by itself, in a mosaic in one pass, and with tiles.
"""
import argparse
import contextlib
import json
import time
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.reports import origin, save
from fastervit_mm.export.runtime import Network, draw, instances, read_image

LOWEST = 0.05  # score


def mosaics(data, folder, columns, rows):
    """Mosaics of images of the first one's size, and their annotations as a COCO dataset."""
    height, width = (data['images'][0][side] for side in ('height', 'width'))
    images = [one for one in data['images'] if (one['height'], one['width']) == (height, width)]
    number = len(images) // (columns * rows)
    pixels = np.zeros((number, rows * height, columns * width, 3), np.uint8)
    truth = COCO()
    truth.dataset = dict(categories=data['categories'], annotations=[], images=[
        dict(id=i, height=rows * height, width=columns * width) for i in range(number)])
    for i, image in enumerate(images[:number * columns * rows]):
        mosaic, place = divmod(i, columns * rows)
        y, x = place // columns * height, place % columns * width
        pixels[mosaic, y:y + height, x:x + width] = read_image(folder / image['file_name'])
        truth.dataset['annotations'] += [
            dict(one, image_id=mosaic, bbox=[one['bbox'][0] + x, one['bbox'][1] + y,
                                             *one['bbox'][2:]])
            for one in data['annotations'] if one['image_id'] == image['id']]
    truth.createIndex()
    return pixels, truth, (height, width)


def by_itself(network, mosaic, size):
    """Objects of each image of a mosaic."""
    parts = []
    for x, y in np.ndindex(mosaic.shape[1] // size[1], mosaic.shape[0] // size[0]):
        x, y = x * size[1], y * size[0]
        parts.append(network(mosaic[y:y + size[0], x:x + size[1]], LOWEST))
        parts[-1]['boxes'] += np.float32((x, y, x, y))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def rated(truth, results):
    """Means over classes, and ids of the annotations that a box of IoU 0.5 belongs to."""
    if not results:
        return dict(mAP=0., mAP_50=0., recall=0.), set()
    with contextlib.redirect_stdout(None):
        rating = COCOeval(truth, truth.loadRes(results), 'bbox')
        rating.params.maxDets = [10000]  # COCO's 100 are less than a mosaic has
        rating.params.areaRng, rating.params.areaRngLbl = [[0, 1e10]], ['all']
        rating.evaluate()
        rating.accumulate()
    precision, recall = (rating.eval[name] for name in ('precision', 'recall'))
    figures = dict(mAP=precision, mAP_50=precision[0], recall=recall)
    found = {annotation for one in rating.evalImgs if one for annotation, match in zip(
        one['gtIds'], one['gtMatches'][0]) if match}
    return {name: float(part[part > -1].mean()) for name, part in figures.items()}, found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('model', metavar='MODEL.onnx', help='detector of tools/export.py')
    parser.add_argument('annotations', type=Path, help='COCO annotation file')
    parser.add_argument('images', type=Path, help='folder of its images')
    parser.add_argument('--grid', type=int, nargs=2, default=(4, 4), metavar=('COLUMNS', 'ROWS'))
    parser.add_argument('--tile', type=int, help='pixels (default: the longer side of an image)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/bench/tiles'))
    args = parser.parse_args()
    network, data = Network(args.model), json.loads(args.annotations.read_text())
    pixels, truth, size = mosaics(data, args.images, *args.grid)
    ways = {'each image': lambda mosaic: by_itself(network, mosaic, size),
            'one pass': lambda mosaic: network(mosaic, LOWEST),
            'tiles': lambda mosaic: network(mosaic, LOWEST, args.tile or max(size))}
    report = dict(origin(), mosaics=pixels.shape, objects=len(truth.anns), ways={})
    args.out.mkdir(parents=True, exist_ok=True)
    found = {}
    for way, find in ways.items():
        results, start = [], time.time()
        for number, mosaic in enumerate(pixels):
            objects = find(mosaic)
            objects.pop('masks', None)
            results += [dict(one, image_id=number) for one in instances(
                objects, network, mosaic.shape)]
        seconds = (time.time() - start) / len(pixels)
        sure = {name: values[objects['scores'] >= 0.3] for name, values in objects.items()}
        draw(mosaic, sure, network).save(args.out / f'{way.replace(" ", "_")}.jpg')
        figures, found[way] = rated(truth, results)
        report['ways'][way] = dict(figures, found=len(found[way]), seconds=seconds)
        print(f'{way:10}', *(f'{name} {value:.3f}' for name, value in figures.items()),
              f'found {len(found[way])} of {len(truth.anns)}', f'{seconds:.1f} s each', sep='  ')
    report['lost'] = len(found['one pass'] - found['tiles'])
    print(f'found in one pass and not with tiles: {report["lost"]}')
    save(report, args.out / 'tiles.json')


if __name__ == '__main__':
    main()
