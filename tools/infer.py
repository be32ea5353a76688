#!/usr/bin/env python
"""Predict on images and videos; write overlays and results."""
import argparse
import importlib.util
import json
import os
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a clone that is not installed


def parse_args():
    """Arguments: ``model``, a file of tools/export.py, or ``config`` and ``checkpoint``."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        usage='%(prog)s [options] CONFIG CHECKPOINT INPUT... --out DIR\n'
        '       %(prog)s [options] MODEL.onnx INPUT... --out DIR',
        epilog='MODEL.onnx is a file of tools/export.py; it needs onnxruntime, numpy and pillow '
        'alone, and takes --out, --score-thr and --tile. '
        'A detector writes OUT/predictions.json (COCO results: boxes, '
        'RLE masks) and OUT/images.json (the images and categories of its ids), a segmentor '
        'OUT/pred/*.png, a panoptic network OUT/panoptic.json and OUT/pred/*.png, a classifier '
        'OUT/predictions.json (the five likeliest classes of each image); overlays go to OUT/vis/. '
        'Files of an image have its path below the given folder, or below the folder common to all '
        'inputs. Inputs that cannot be read are listed at the end; the exit status is then 1.')
    if any(argument.lower().endswith('.onnx') for argument in sys.argv[1:]):
        parser.add_argument('model', metavar='MODEL.onnx', help='file of tools/export.py')
    else:
        parser.add_argument('config', help='config file, or the name of one of this package\'s '
                            'such as mmdet/cascade_fvit')
        parser.add_argument('checkpoint', help='checkpoint file, or for a classifier a name such '
                            'as fastervit://2-224-1k')
        parser.add_argument('--device', help='such as cpu or cuda:0 (default: the GPU if there is '
                            'one)')
        parser.add_argument('--batch-size', type=int, default=1,
                            help='images per forward pass; a segmentor needs images of the same '
                            'size for more than 1 (default: 1)')
        parser.add_argument('--deploy', action='store_true',
                            help='fold the backbone first: same predictions, faster')
    parser.add_argument('inputs', nargs='+', metavar='INPUT',
                        help='image, video (not for MODEL.onnx), folder (with those in it), or '
                        'pattern in quotes such as "a/**/*.jpg"')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for results')
    parser.add_argument('--score-thr', type=float, default=0.3,
                        help='lowest score of detections that are drawn and written '
                        '(default: 0.3)')
    parser.add_argument('--tile', type=int, metavar='SIZE', help='a detector also looks at tiles '
                        'of SIZE pixels a side, for small objects in large images')
    return parser.parse_args()


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    failures = (run_file if 'model' in args else run_checkpoint)(args)
    if len(failures) == 1:
        (source, reason), = failures
        sys.exit(f'infer: {source} gave no prediction: {reason}')
    if failures:
        listed = '\n'.join(f'  {source}: {reason}' for source, reason in failures)
        sys.exit(f'infer: {len(failures)} inputs gave no prediction:\n{listed}')


def run_checkpoint(args):
    from rich.console import Console

    from fastervit_mm.apis import Inferencer
    from fastervit_mm.command_line import errors_in_one_line
    console = Console(soft_wrap=True, highlight=False)
    with errors_in_one_line('infer'):
        inferencer = Inferencer(args.config, args.checkpoint, args.device, args.deploy)
        results = inferencer(args.inputs, args.out, args.batch_size, args.score_thr,
                             show_progress=True, tile=args.tile)
    found = ''
    for kind in ('instances', 'segments'):
        several = [getattr(p, kind) for p in results.predictions if getattr(p, kind) is not None]
        found += f', {sum(map(len, several))} {kind}' if several else ''
    for one in results.predictions if inferencer.classifies else ():
        place = one.source if one.frame is None else f'{one.source}, frame {one.frame}'
        named = '; '.join(f'{best["name"]} {best["score"]:.2f}' for best in one.top)
        console.print(f'{place}: {named}', markup=False)
    console.print(f'{len(results.predictions)} images{found}', markup=False)
    shown = [p for p in results.predictions if p.shown]
    if shown:
        console.print(f'{len(shown)} overlays show images converted for viewing, '
                      f'such as {shown[0].source}: {shown[0].shown}', markup=False)
    for path in [*results.files, *sorted({str(Path(f).parent) for p in results.predictions
                                          for f in p.files.values()})]:
        console.print(f'  {path}', markup=False)
    return results.failures


def run_file(args):
    """Predict with a file; nothing but onnxruntime, numpy and Pillow is imported."""
    out, failures, images, results = Path(args.out), [], [], []
    try:
        runtime = load_runtime()
        if args.tile is not None and args.tile < runtime.LEAST_TILE:
            raise ValueError(f'tile={args.tile}: give at least {runtime.LEAST_TILE} pixels')
        if not 0 <= args.score_thr <= 1:
            raise ValueError(f'score_thr={args.score_thr}: give a score from 0 to 1')
        runtime.Image.MAX_IMAGE_PIXELS = None  # read_image has a limit of its own
        network = runtime.Network(args.model)
        paths = runtime.collect(args.inputs, out)
        given = set(map(os.path.realpath, paths))
        for path, name in paths.items():
            try:
                image = runtime.read_image(path, not network.facts.get('ignore_orientation'))
                found = network(image, args.score_thr, args.tile)
            except Exception as error:  # noqa: BLE001  a decoder may raise anything
                failures.append((path, runtime.first_line(error)))
                continue
            save(runtime.draw(image, found, network), out / 'vis' / f'{name}.jpg', given)
            number = len(images) + 1
            images.append(dict(id=number, file_name=path, height=image.shape[0],
                               width=image.shape[1]))
            if network.task == 'segmentation':
                labels = found['labels'] + network.facts.get('label_offset', 0)
                labels = labels.astype('uint8' if labels.max() < 256 else 'uint16')
                save(runtime.Image.fromarray(labels), out / 'pred' / f'{name}.png', given)
            elif network.task == 'classification':
                results.append(dict(file_name=path, top=runtime.likeliest(found, network)))
                print(f'{path}: ' + '; '.join(f'{best["name"]} {best["score"]:.2f}'
                                              for best in results[-1]['top']))
            else:
                results += [dict(image_id=number, **instance) for instance in runtime.instances(
                    found, network, image.shape)]
        written = {} if network.task == 'segmentation' else {'predictions.json': results}
        if network.task == 'detection':
            written['images.json'] = dict(info={}, images=images, annotations=[], categories=[
                dict(id=i, name=name) for i, name in zip(network.category_ids, network.classes)])
        for name, content in written.items():
            out.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(json.dumps(content))
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f'infer: {error}')
    print(f'{len(images)} images' + f', {len(results)} instances' * (network.task == 'detection'))
    print(*(f'  {out / name}' for name in (*written, 'pred', 'vis') if (out / name).exists()),
          sep='\n')
    return failures


def load_runtime():
    """The package's module by its path, since the package itself needs torch."""
    package = ROOT / 'fastervit_mm'
    path = (package if package.is_dir() else ROOT.parent) / 'export/runtime.py'  # a wheel's .mim
    spec = importlib.util.spec_from_file_location('runtime', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def save(picture, path, given):
    """Save a result, but not over an input; ``given`` has the inputs' real paths."""
    if os.path.realpath(path) in given:
        raise ValueError(f'out: the input {path} would be replaced by a result; give another '
                         'folder')
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


if __name__ == '__main__':
    main()
