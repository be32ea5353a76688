"""Train a config, evaluate it and draw predictions: `make demo`."""
import argparse

from benchmarks.demo.run import run_demo
from fastervit_mm.command_line import errors_in_one_line


def parse_args():
    parser = argparse.ArgumentParser(prog='python -m benchmarks.demo', description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', default='work_dirs/demo', help='folder for all results')
    return parser.parse_args()


def main():
    args = parse_args()
    with errors_in_one_line('demo', go_on='the same command goes on'):
        run_demo(args.config, args.work_dir)


if __name__ == '__main__':
    main()
