#!/usr/bin/env python
"""Train a config whose dataset generates itself, evaluate it and draw predictions: `make demo`."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from fastervit_mm.apis.demo import run_demo  # noqa: E402
from fastervit_mm.command_line import errors_in_one_line  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', default='work_dirs/demo', help='folder for all results')
    return parser.parse_args()


def main():
    args = parse_args()
    with errors_in_one_line('demo', go_on='the same command goes on'):
        run_demo(args.config, args.work_dir)


if __name__ == '__main__':
    main()
