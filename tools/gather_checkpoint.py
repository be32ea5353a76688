#!/usr/bin/env python
"""Make one file of a sharded checkpoint, for other tools."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from fastervit_mm.command_line import errors_in_one_line  # noqa: E402
from fastervit_mm.engine.sharding import gather_checkpoint  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('folder', help='checkpoint of a sharded training, such as '
                        'work_dirs/cascade_fvit_6_fsdp/epoch_36.pth')
    parser.add_argument('out', help='the file')
    parser.add_argument('--all', action='store_true',
                        help='optimizer and schedules too, for --resume with another number of '
                        'processes (default: only the weights)')
    return parser.parse_args()


def main():
    args = parse_args()
    with errors_in_one_line('gather_checkpoint'):
        gather_checkpoint(args.folder, args.out, args.all)


if __name__ == '__main__':
    main()
