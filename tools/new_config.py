#!/usr/bin/env python
"""Look at a folder of your own data and write a config that trains on it."""
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
        description=__doc__ + ' Detection: COCO .json, Pascal VOC .xml or YOLO .txt. Segmentation: '
        'label maps, PNG.', epilog='exit status: 0 if the data are without problems, 1 if they '
        'have some (the config is written all the same) or nothing was found')
    parser.add_argument('task', choices=['det', 'seg'], help='detection (and instance '
                        'segmentation), or semantic segmentation')
    parser.add_argument('out', metavar='OUT.py', help='config to write')
    parser.add_argument('--data', required=True, metavar='DIR', help='folder of images and '
                        'annotations; nothing in it is changed')
    parser.add_argument('--classes', nargs='+', metavar='NAME', default=[],
                        help='det: categories to detect (default: all); seg: names of the labels, '
                        'from the lowest on')
    parser.add_argument('--arch', default=SMALL,
                        help='network: small, from scratch (default), or a published variant, 0 to '
                        '6, from its ImageNet weights, which are not for commercial use')
    parser.add_argument('--boxes-only', action='store_true',
                        help='det: leave masks out, though the data have some')
    parser.add_argument('--ann', nargs='+', metavar='FILE', default=[],
                        help='det: files to take, where the folder has several: COCO\'s in the '
                        'order train, val, test, or YOLO\'s data.yaml')
    parser.add_argument('--void', type=int, metavar='LABEL',
                        help='seg: label of pixels without a class (default: 255). With 0 the '
                        'classes count from 1')
    parser.add_argument('--label-maps', nargs='+', metavar='DIR', default=[],
                        help='seg: folders of label maps to take, where there are several: one '
                        'with all splits, or those of train, val and test in this order')
    parser.add_argument('--images', nargs='+', metavar='DIR', default=[],
                        help='seg: the folder of images of each of --label-maps')
    parser.add_argument('--img-suffix', metavar='SUFFIX',
                        help='seg: how names of images end, where a label map has several')
    parser.add_argument('--map-suffix', metavar='SUFFIX',
                        help='seg: how names of label maps end, where an image has several, such '
                        'as _labelIds.png')
    parser.add_argument('--force', action='store_true', help='replace OUT.py if it exists')
    args = parser.parse_args()
    if args.task == 'seg' and (args.boxes_only or args.ann):
        parser.error('--boxes-only and --ann are for det')
    for option in ('void', 'label_maps', 'images', 'img_suffix', 'map_suffix'):
        if args.task == 'det' and getattr(args, option) not in (None, []):
            parser.error(f'--{option.replace("_", "-")} is for seg')
    if len(args.label_maps) != len(args.images) or len(args.images) > 3:
        parser.error('give one to three of --label-maps, and as many of --images')
    return args


def main():
    args = parse_args()
    console = Console()
    with errors_in_one_line('new_config'):
        report = new_config(
            args.task, Path(args.data), Path(args.out), args.classes, args.arch, args.boxes_only,
            [Path(path) for path in args.ann], args.void,
            [Path(os.path.abspath(path)) for path in args.label_maps],
            [Path(os.path.abspath(path)) for path in args.images],
            args.img_suffix, args.map_suffix, args.force, console)
    sys.exit(not report.show(console))


if __name__ == '__main__':
    main()
