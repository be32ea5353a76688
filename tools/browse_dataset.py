#!/usr/bin/env python
"""Draw what a pipeline feeds the network, with ground truth."""
import argparse
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from fastervit_mm.apis.browse import SPLITS, browse  # noqa: E402
from fastervit_mm.command_line import Settings, errors_in_one_line  # noqa: E402
from fastervit_mm.engine import launch  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__ + ' Augmentation is included, so the train split looks '
        'different in every run.')
    parser.add_argument('config', help='config file of a detector or segmentor')
    parser.add_argument('--out', metavar='DIR', help='folder for the drawn images and a contact '
                        'sheet of the first (default: none; then give --show)')
    parser.add_argument('--split', default='train', choices=SPLITS, help='(default: train)')
    parser.add_argument('--number', type=int, default=20, metavar='N',
                        help='number of images, from the first; 0 for all (default: 20)')
    parser.add_argument('--show', action='store_true', help='show each in a window')
    parser.add_argument('--wait-time', type=float, default=2,
                        help='seconds between two images of --show (default: 2)')
    parser.add_argument('--cfg-options', nargs='+', action=Settings, metavar='KEY=VALUE',
                        help='settings that replace the config\'s')
    args = parser.parse_args()
    if args.out is None and not args.show:
        parser.error('give --out DIR, --show or both')
    return args


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    with errors_in_one_line('browse_dataset'):
        cfg = launch.load_config(args.config, cfg_options=args.cfg_options)
        files = browse(cfg, args.out, args.split, args.number or None, args.show, args.wait_time)
    if files:
        print(f'{len(files) - 1} figures in {args.out}; {files[-1]} shows the first')


if __name__ == '__main__':
    main()
