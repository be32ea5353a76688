#!/usr/bin/env python
"""Write a config that trains on your data."""
import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from rich.console import Console  # noqa: E402

from fastervit_mm.command_line import errors_in_one_line  # noqa: E402
from fastervit_mm.new_config import SMALL, new_config  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='exit status: 0 if the data are without problems, 1 if they '
        'have some (the config is written all the same) or nothing was found')
    tasks = parser.add_subparsers(dest='task', required=True, metavar='TASK')
    det = tasks.add_parser('det', help='detection and instance segmentation: COCO .json, Pascal '
                           'VOC .xml or YOLO .txt')
    seg = tasks.add_parser('seg', help='semantic segmentation: label maps, PNG')
    for task in (det, seg):
        task.add_argument('out', metavar='OUT.py', help='config to write')
        task.add_argument('--data', required=True, metavar='DIR', help='folder of images and '
                          'annotations; nothing in it is changed')
        task.add_argument('--classes', nargs='+', metavar='NAME', default=[],
                          help='categories to detect (default: all)' if task is det else
                          'names of the labels, from the lowest up')
        task.add_argument('--arch', default=SMALL,
                          help='network: small, from scratch (default), or a published variant, 0 '
                          'to 6, from its ImageNet weights, which are not for commercial use')
        task.add_argument('--all-channels', action='store_true',
                          help='read every channel of 8-bit images: grey as one, alpha as another')
        task.add_argument('--force', action='store_true', help='replace OUT.py if it exists')
    det.add_argument('--boxes-only', action='store_true',
                     help='leave out the data\'s masks')
    det.add_argument('--balance', action='store_true', dest='balanced',
                     help='show training images of rare classes several times in an epoch')
    det.add_argument('--ann', nargs='+', metavar='FILE', default=[], type=Path, dest='ann_files',
                     help='files to take, if the folder has several: COCO\'s in the order '
                     'train, val, test, or YOLO\'s data.yaml')
    seg.add_argument('--void', type=int, metavar='LABEL',
                     help='label of pixels without a class (default: 255). With 0 the classes '
                     'count from 1')
    seg.add_argument('--label-maps', nargs='+', metavar='DIR', default=[], type=_folder,
                     help='folders of label maps to take, if there are several: one with all '
                     'splits, or one each for train, val and test, in this order')
    seg.add_argument('--images', nargs='+', metavar='DIR', default=[], type=_folder,
                     help='folder of images for each of --label-maps')
    seg.add_argument('--img-suffix', metavar='SUFFIX',
                     help='ending of images\' names, if a label map has several images')
    seg.add_argument('--map-suffix', metavar='SUFFIX',
                     help='ending of label maps\' names, if an image has several, such as '
                     '_labelIds.png')
    args = parser.parse_args()
    if args.task == 'seg' and (len(args.label_maps) != len(args.images) or len(args.images) > 3):
        parser.error('give one to three of --label-maps, and as many of --images')
    return args


def _folder(path):
    return Path(os.path.abspath(path))


def main():
    settings = vars(parse_args())
    console = Console()
    with errors_in_one_line('new_config'):
        report = new_config(settings.pop('task'), Path(settings.pop('data')),
                            Path(settings.pop('out')), console=console, **settings)
    sys.exit(not report.show(console))


if __name__ == '__main__':
    main()
