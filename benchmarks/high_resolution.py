#!/usr/bin/env python
"""Compare time, memory and multiply-adds of networks from 512 to 3840 pixels a side.

    python benchmarks/high_resolution.py --out benchmarks/high-resolution.json

Figures are saved after every network: started again, the program goes on with what is missing.
The tables of docs/high_resolution.md are written with --page.
"""
import argparse
import re
import shlex
import sys
import warnings
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))  # a clone that is not installed

from fastervit_mm.benchmark import high_resolution as high  # noqa: E402
from fastervit_mm.command_line import errors_in_one_line  # noqa: E402

BEGIN = '<!-- written by benchmarks/high_resolution.py -->'
END = '<!-- until here -->'


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--networks', nargs='+', default=list(high.NETWORKS), metavar='NAME',
                        help=f'default: {" ".join(high.NETWORKS)}')
    parser.add_argument('--sides', nargs='+', type=int, default=list(high.SIDES),
                        help='of square images, in pixels (default: '
                        f'{" ".join(map(str, high.SIDES))})')
    parser.add_argument('--counted', nargs='*', type=int, default=list(high.COUNTED),
                        help='sides for which multiply-adds are counted alone (default: '
                        f'{" ".join(map(str, high.COUNTED))})')
    parser.add_argument('--longest', type=float, default=120, metavar='SECONDS',
                        help='what would take longer a step is not run (default: 120)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/bench/high-resolution.json'),
                        help='JSON of the figures, the picture beside it (default: '
                        'work_dirs/bench/high-resolution.json)')
    parser.add_argument('--note', help='of the circumstances, for the JSON')
    parser.add_argument('--page', type=Path,
                        help='also write the tables into this page, between its marks')
    return parser.parse_args()


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    with errors_in_one_line('high_resolution'):
        report = high.compare(args.networks, args.sides, args.counted, args.out, shlex.join(
            ['python', 'benchmarks/high_resolution.py', *sys.argv[1:]]), args.longest,
            lambda line: print(line, flush=True), args.note)
        lines = high.tables(report)
        print('\n'.join(lines))
        print(high.draw(report, args.out.with_suffix('.png')))
        if args.page:
            write_tables(args.page, lines)


def write_tables(page, lines):
    """Replace what is between the marks."""
    text = page.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f'page={str(page)!r}: has no lines {BEGIN} and {END}')
    page.write_text(re.sub(re.escape(BEGIN) + '.*' + re.escape(END), lambda _: '\n'.join(
        [BEGIN, '', *lines, '', END]), text, flags=re.DOTALL))


if __name__ == '__main__':
    main()
