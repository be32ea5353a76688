#!/usr/bin/env python
"""Draw losses and metrics of several runs side by side."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from fastervit_mm.command_line import errors_in_one_line  # noqa: E402
from fastervit_mm.engine import curves  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__ + ' A resumed run is one curve.')
    parser.add_argument('runs', nargs='+', metavar='RUN',
                        help='work directory, one of its time-stamped folders, or a scalars.json')
    parser.add_argument('--out', default='runs.png', metavar='PNG',
                        help='figure to write (default: runs.png)')
    parser.add_argument('--keys', nargs='+', metavar='KEY',
                        help='what to draw, such as loss loss_mask lr bbox_mAP (default: loss and '
                        'the main metrics)')
    return parser.parse_args()


def main():
    args = parse_args()
    with errors_in_one_line('plot_logs'):
        compared = curves.compare_runs(args.runs, args.keys)
        curves.plot_runs(compared, args.out)
    table = Table()
    for name in ('key', 'run', 'last iteration', 'last', 'lowest', 'highest'):
        table.add_column(name, justify='left' if name in ('key', 'run') else 'right')
    for key, lines in compared.items():
        for label, curve in lines.items():
            values = [value for _, value in curve]
            table.add_row(key, label, str(curve[-1][0]),
                          *(f'{v:.4g}' for v in (values[-1], min(values), max(values))))
    console = Console()
    console.print(table)
    console.print(args.out, highlight=False, soft_wrap=True)


if __name__ == '__main__':
    main()
