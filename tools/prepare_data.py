#!/usr/bin/env python
"""Unpack and check the downloads of a dataset, or say what is missing.

With "check" as the dataset, check your own data, in any layout: COCO files (--ann) or label maps
(--label-maps), and their images.
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from fastervit_mm.datasets.checking import print_annotations, print_label_maps  # noqa: E402
from fastervit_mm.datasets.prepare import DATA_SETS, prepare  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='exit status: 0 if the dataset is complete (and, with '
        '--check or check, without problems), else 1')
    parser.add_argument('name', choices=[*DATA_SETS, 'check'],
                        help='dataset, or check for your own data')
    parser.add_argument('--root', metavar='DIR',
                        help='its folder, a config\'s data_root, such as data/coco, '
                        'data/ade/ADEChallengeData2016 or data/imagenet; put downloads in it '
                        'or beside it')
    parser.add_argument('--check', action='store_true',
                        help='read every image, annotation and label map')
    own = parser.add_argument_group(
        'your own data', 'Several annotation files or folders of label maps, such as of training '
        'and validation, are checked together: no image may be in two. Paths are paired in order.')
    own.add_argument('--ann', nargs='+', metavar='JSON',
                     help='annotation files: images, annotations and categories')
    own.add_argument('--label-maps', nargs='+', metavar='DIR',
                     help='folders of label maps: PNG with a class number in each pixel')
    own.add_argument('--images', nargs='+', metavar='DIR',
                     help='the folder of images of each; subfolders are read too')
    own.add_argument('--num-classes', type=int, metavar='N',
                     help='label maps: number of classes (default: whatever occurs is in range)')
    own.add_argument('--void', type=int, default=255, metavar='LABEL',
                     help='label maps: label that is ignored in training (default: 255)')
    own.add_argument('--reduce-zero-label', action='store_true',
                     help='label maps: 0 is unlabelled and classes are 1 to N, as in ADE20K')
    own.add_argument('--img-suffix', metavar='SUFFIX',
                     help='label maps: how images\' names end (default: any ending)')
    own.add_argument('--map-suffix', metavar='SUFFIX',
                     help='label maps: how their names end, where an image has several, such as '
                     '_labelIds.png')
    args = parser.parse_args()
    if args.name != 'check' and args.root is None:
        parser.error('the following arguments are required: --root')
    if args.name != 'check' and (args.ann or args.label_maps or args.images):
        parser.error(f'--ann, --label-maps and --images are for check, not for {args.name}')
    if args.name == 'check' and (args.root or args.check):
        parser.error('--root and --check are for a dataset, not for check')
    if args.name == 'check' and bool(args.ann) == bool(args.label_maps):
        parser.error('check: give either --ann or --label-maps')
    if args.ann and (args.num_classes is not None or args.reduce_zero_label or args.img_suffix
                     or args.map_suffix):
        parser.error('--num-classes, --reduce-zero-label, --img-suffix and --map-suffix are for '
                     '--label-maps')
    if args.name == 'check' and not args.images:
        parser.error('check: the following arguments are required: --images')
    return args


def run(args):
    """Whether there is no problem."""
    if args.ann:
        return print_annotations(args.ann, args.images)
    if args.label_maps:
        return print_label_maps(
            args.label_maps, args.images, num_classes=args.num_classes, void=args.void,
            img_suffix=args.img_suffix, map_suffix=args.map_suffix,
            reduce_zero_label=args.reduce_zero_label)
    return prepare(args.name, args.root, args.check)


def main():
    args = parse_args()
    try:
        sys.exit(not run(args))
    except (OSError, ValueError) as error:
        sys.exit(f'prepare_data: {error}')


if __name__ == '__main__':
    main()
