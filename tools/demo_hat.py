#!/usr/bin/env python
"""Train two networks on the long-range task, with carriers and without: `make demo-hat`."""
import argparse
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))  # a clone that is not installed

from fastervit_mm.apis.demo_hat import run_hat_demo  # noqa: E402
from fastervit_mm.command_line import errors_in_one_line  # noqa: E402

CONFIGS = REPO / 'configs/mmseg'


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--carriers', default=str(CONFIGS / 'fcn_fvit_long_range.py'),
                        help='config of the network with carriers')
    parser.add_argument('--windows', default=str(CONFIGS / 'fcn_fvit_long_range_windows.py'),
                        help='config of the network without')
    parser.add_argument('--work-dir', default='work_dirs/demo-hat', help='folder for all results')
    return parser.parse_args()


def main():
    args = parse_args()
    with errors_in_one_line('demo_hat', go_on='the same command goes on'):
        run_hat_demo({'with carriers': args.carriers, 'without carriers': args.windows},
                     args.work_dir)


if __name__ == '__main__':
    main()
