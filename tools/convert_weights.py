#!/usr/bin/env python
"""Extract the backbone from a checkpoint, under this package's names.

The authors' files also contain optimizer state and a classifier, and are several times as large. A
detector of the official DINO code is written whole, as mmdet's DINO
(configs/mmdet/dino_fvit_4_21k_224.py).
"""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from fastervit_mm.command_line import errors_in_one_line  # noqa: E402
from fastervit_mm.weights import convert  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='IN', help='path, URL or a name such as '
                        'fastervit://2-224-1k')
    parser.add_argument('target', metavar='OUT', nargs='?',
                        help='file to write, .safetensors or .pth; it must not exist yet (default: '
                        'IN\'s name with .safetensors, in this folder)')
    parser.add_argument('--classifier', action='store_true',
                        help='keep the classifier too, under the names of mmpretrain\'s')
    parser.add_argument('--prefix', metavar='NAME.', help='before the backbone\'s names in IN, '
                        'such as student.backbone. (default: found)')
    return parser.parse_args()


def main():
    args = parse_args()
    with errors_in_one_line('convert_weights'):
        print(convert(args.source, args.target, args.classifier, args.prefix))


if __name__ == '__main__':
    main()
