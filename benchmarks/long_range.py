#!/usr/bin/env python
"""Train small networks alike on the long-range task, and compare what they see over distance.

    python benchmarks/long_range.py --seeds 0 1 2 --out benchmarks/long-range.json

Each network is trained by the runner, with the schedule of configs/mmseg/fcn_fvit_long_range.py and
another backbone. Figures are saved after every training: started again, the program goes on with
what is missing. The table of docs/long_range.md and its figure are written with --page.
"""
import argparse
import re
import shlex
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))  # a clone that is not installed

from fastervit_mm.benchmark.long_range import NETWORKS, compare, draw, table  # noqa: E402
from fastervit_mm.command_line import Settings, errors_in_one_line  # noqa: E402

CONFIG = 'configs/mmseg/fcn_fvit_long_range.py'
MARK = '<!-- long range: written by benchmarks/long_range.py -->'


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--networks', nargs='+', default=list(NETWORKS), choices=list(NETWORKS),
                        metavar='NAME', help=f'default {" ".join(NETWORKS)}')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2],
                        help='(default: 0 1 2)')
    parser.add_argument('--config', default=str(REPO / CONFIG),
                        help='of the task (default: the repository\'s)')
    parser.add_argument('--cfg-options', nargs='+', action=Settings, metavar='KEY=VALUE',
                        help='settings that replace the config\'s')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/bench/long-range.json'),
                        help='JSON of the figures (default: work_dirs/bench/long-range.json)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/long_range'),
                        help='for logs and checkpoints (default: work_dirs/long_range)')
    parser.add_argument('--page', type=Path,
                        help='also write the table into this page, after its mark')
    return parser.parse_args()


def main():
    args = parse_args()
    with errors_in_one_line('long_range'):
        report = compare(args.config, args.networks, args.seeds, args.out, args.work_dir,
                         shlex.join(['python', 'benchmarks/long_range.py', *sys.argv[1:]]),
                         args.cfg_options)
        lines = table(report)
        print('\n'.join(lines))
        print(draw(report, args.out.with_suffix('')))
        if args.page:
            write_table(args.page, lines)


def write_table(page, lines):
    """Replace the table after the mark."""
    text = page.read_text()
    if MARK not in text:
        raise ValueError(f'page={str(page)!r}: has no line {MARK}')
    page.write_text(re.sub(re.escape(MARK) + r'\n\n(?:\|.*\n)*',
                           lambda _: MARK + '\n\n' + '\n'.join(lines) + '\n', text))


if __name__ == '__main__':
    main()
