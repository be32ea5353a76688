#!/usr/bin/env python
"""Unpack and check a dataset, or say what is missing.

With "check" as the dataset, check your own data, in any layout: COCO files (--ann) or label maps
(--label-maps), and their images.
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from fastervit_mm.command_line import errors_in_one_line  # noqa: E402
from fastervit_mm.datasets.checking import print_annotations, print_label_maps  # noqa: E402
from fastervit_mm.datasets.prepare import DATA_SETS, prepare  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='exit status: 0 if the dataset is complete (and, if checked, '
        'without problems), else 1')
    names = parser.add_subparsers(dest='name', required=True, metavar='NAME')
    for name, data in DATA_SETS.items():
        one = names.add_parser(name, help=data.title)
        one.add_argument('--root', required=True, metavar='DIR',
                         help='its folder, a config\'s data_root; put downloads in it or beside it')
        one.add_argument('--check', action='store_true',
                         help='read every image, annotation and label map')
    own = names.add_parser(
        'check', help='your own data', description='Several annotation files or folders of label '
        'maps, such as of training and validation, are checked together: no image may be in two. '
        'Paths are paired in order.')
    kind = own.add_mutually_exclusive_group(required=True)
    kind.add_argument('--ann', nargs='+', metavar='JSON',
                      help='annotation files: images, annotations and categories')
    kind.add_argument('--label-maps', nargs='+', metavar='DIR',
                      help='folders of label maps: PNG with a class number in each pixel')
    own.add_argument('--images', nargs='+', metavar='DIR', required=True,
                     help='the folder of images of each; subfolders are read too')
    own.add_argument('--num-classes', type=int, metavar='N',
                     help='label maps: number of classes (default: every label is in range)')
    own.add_argument('--void', type=int, default=255, metavar='LABEL',
                     help='label maps: label that is ignored in training (default: 255)')
    own.add_argument('--reduce-zero-label', action='store_true',
                     help='label maps: 0 is unlabelled and classes are 1 to N, as in ADE20K')
    own.add_argument('--img-suffix', metavar='SUFFIX',
                     help='label maps: ending of images\' names (default: any)')
    own.add_argument('--map-suffix', metavar='SUFFIX',
                     help='label maps: ending of their names, if an image has several, such as '
                     '_labelIds.png')
    args = parser.parse_args()
    if args.name == 'check' and args.ann and (args.num_classes is not None or args.reduce_zero_label
                                              or args.img_suffix or args.map_suffix):
        parser.error('--num-classes, --reduce-zero-label, --img-suffix and --map-suffix are for '
                     '--label-maps')
    return args


def run(args):
    """Whether the data are without problems."""
    if args.name != 'check':
        return prepare(args.name, args.root, args.check)
    if args.ann:
        return print_annotations(args.ann, args.images)
    return print_label_maps(
        args.label_maps, args.images, num_classes=args.num_classes, void=args.void,
        img_suffix=args.img_suffix, map_suffix=args.map_suffix,
        reduce_zero_label=args.reduce_zero_label)


def main():
    args = parse_args()
    with errors_in_one_line('prepare_data'):
        sound = run(args)
    sys.exit(not sound)


if __name__ == '__main__':
    main()
