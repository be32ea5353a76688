"""Compare networks from 512 to 3840 pixels a side.

    python -m benchmarks.high_resolution --out benchmarks/high-resolution.json

Figures are saved after every network: when restarted, the program continues with the missing ones.
"""
import argparse
import warnings
from pathlib import Path

from benchmarks.high_resolution import study as high
from fastervit_mm.command_line import errors_in_one_line


def parse_args():
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.high_resolution', description=__doc__.split('\n')[0])
    parser.add_argument('--networks', nargs='+', default=list(high.NETWORKS), metavar='NAME',
                        help=f'default: {" ".join(high.NETWORKS)}')
    parser.add_argument('--sides', nargs='+', type=int, default=list(high.SIDES),
                        help='of square images, in pixels (default: '
                        f'{" ".join(map(str, high.SIDES))})')
    parser.add_argument('--counted', nargs='*', type=int, default=list(high.COUNTED),
                        help='sides for which only multiply-adds are counted (default: '
                        f'{" ".join(map(str, high.COUNTED))})')
    parser.add_argument('--longest', type=float, default=120, metavar='SECONDS',
                        help='longest seconds of a step; slower cases are not run (default: 120)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/bench/high-resolution.json'),
                        help='JSON of the figures, with the plot beside it (default: '
                        'work_dirs/bench/high-resolution.json)')
    parser.add_argument('--note', help='note about the circumstances, for the JSON')
    return parser.parse_args()


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    with errors_in_one_line('high_resolution'):
        report = high.compare(args.networks, args.sides, args.counted, args.out, args.longest,
            lambda line: print(line, flush=True), args.note)
        print('\n'.join(high.tables(report)))
        print(high.draw(report, args.out.with_suffix('.png')))


if __name__ == '__main__':
    main()
