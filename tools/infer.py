#!/usr/bin/env python
"""Predict on images and videos; write overlays and results."""
import argparse
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from rich.console import Console  # noqa: E402

from fastervit_mm.apis import Inferencer  # noqa: E402
from fastervit_mm.command_line import errors_in_one_line  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='A detector writes OUT/predictions.json (COCO results: boxes, '
        'RLE masks) and OUT/images.json (the images and categories of its ids), a segmentor '
        'OUT/pred/*.png, a panoptic network OUT/panoptic.json and OUT/pred/*.png, a classifier '
        'OUT/predictions.json (the five likeliest classes of each image); overlays go to OUT/vis/. '
        'Files of an image have its path below the given folder, or below the folder common to all '
        'inputs. Inputs that cannot be read are listed at the end; the exit status is then 1.')
    parser.add_argument('config', help='config file, or the name of one of this package\'s such as '
                        'mmdet/cascade_fvit')
    parser.add_argument('checkpoint', help='checkpoint file, or for a classifier a name such as '
                        'fastervit://2-224-1k')
    parser.add_argument('inputs', nargs='+', metavar='INPUT',
                        help='image, video, folder (with those in it), or pattern in quotes such '
                        'as "a/**/*.jpg"')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for results')
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: the GPU if there is one)')
    parser.add_argument('--batch-size', type=int, default=1,
                        help='images per forward pass; a segmentor needs images of the same size '
                        'for more than 1 (default: 1)')
    parser.add_argument('--score-thr', type=float, default=0.3,
                        help='lowest score of detections that are drawn and written '
                        '(default: 0.3)')
    parser.add_argument('--deploy', action='store_true',
                        help='fold the backbone first: same predictions, faster')
    return parser.parse_args()


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    console = Console(soft_wrap=True, highlight=False)
    with errors_in_one_line('infer'):
        inferencer = Inferencer(args.config, args.checkpoint, args.device, args.deploy)
        results = inferencer(args.inputs, args.out, args.batch_size, args.score_thr,
                             show_progress=True)
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
    if len(results.failures) == 1:
        failure, = results.failures
        sys.exit(f'infer: {failure.source} gave no prediction: {failure.reason}')
    if results.failures:
        listed = '\n'.join(f'  {f.source}: {f.reason}' for f in results.failures)
        sys.exit(f'infer: {len(results.failures)} inputs gave no prediction:\n{listed}')


if __name__ == '__main__':
    main()
