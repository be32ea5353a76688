#!/usr/bin/env python
"""Say what is missing of a dataset and where to download it, unpack the downloads, check them."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from fastervit_mm.datasets.prepare import DATA_SETS, prepare  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='exit status: 0 if the dataset is complete (and, with '
        '--check, without problems), else 1')
    parser.add_argument('name', choices=DATA_SETS, help='dataset')
    parser.add_argument('--root', required=True, metavar='DIR',
                        help='its folder, a config\'s data_root, such as data/coco or '
                        'data/ade/ADEChallengeData2016; put downloads in it or beside it')
    parser.add_argument('--check', action='store_true',
                        help='read every image, annotation and label map')
    return parser.parse_args()


def main():
    args = parse_args()
    try:
        sys.exit(not prepare(args.name, args.root, args.check))
    except OSError as error:
        sys.exit(f'prepare_data: {error}')


if __name__ == '__main__':
    main()
