#!/usr/bin/env python
"""Train small networks alike on the long-range task, and compare what they see over distance.

    python benchmarks/long_range.py --seeds 0 1 2 --larger 256 --out benchmarks/long-range.json

Each network is trained by the runner, with the schedule of configs/mmseg/fcn_fvit_long_range.py and
another backbone. Figures are saved after every training: started again, the program goes on with
what is missing. --times times all of them in turns. --page writes the tables of docs/long_range.md.
"""
import argparse
import re
import shlex
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))  # a clone that is not installed

from fastervit_mm.benchmark.long_range import (  # noqa: E402
    NETWORKS,
    Task,
    add_times,
    compare,
    draw,
    table,
)
from fastervit_mm.command_line import Settings, errors_in_one_line  # noqa: E402

CONFIG = 'configs/mmseg/fcn_fvit_long_range.py'
MARK = '<!-- long range, {}: written by benchmarks/long_range.py -->'


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--networks', nargs='+', choices=list(NETWORKS), metavar='NAME',
                        help='default all that fit the windows: ' + ' '.join(NETWORKS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2],
                        help='(default: 0 1 2)')
    parser.add_argument('--config', default=str(REPO / CONFIG),
                        help='of the task (default: the repository\'s)')
    parser.add_argument('--size', type=int, default=128,
                        help='side of the images, in pixels (default: 128)')
    parser.add_argument('--window-size', type=int, default=2,
                        help='side of a window, in cells of 16 pixels (default: 2)')
    parser.add_argument('--larger', nargs='+', type=int, default=[], metavar='SIZE',
                        help='sides of larger images to evaluate on besides')
    parser.add_argument('--cfg-options', nargs='+', action=Settings, metavar='KEY=VALUE',
                        help='settings that replace the config\'s')
    parser.add_argument('--times', action='store_true', help='also time a forward pass of each')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/bench/long-range.json'),
                        help='JSON of the figures (default: work_dirs/bench/long-range.json)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/long_range'),
                        help='for logs and checkpoints (default: work_dirs/long_range)')
    parser.add_argument('--page', type=Path,
                        help='also write the tables into this page, after its marks')
    return parser.parse_args()


def main():
    args = parse_args()
    with errors_in_one_line('long_range'):
        task = Task(args.config, args.size, args.window_size, args.cfg_options)
        report = compare(task, args.networks or task.fitting(), args.seeds, args.out,
                         args.work_dir,
                         shlex.join(['python', 'benchmarks/long_range.py', *sys.argv[1:]]),
                         args.larger)
        if args.times:
            report = add_times(task, args.out)
        print('\n'.join(table(report)))
        print(draw(report, args.out.with_suffix('')))
        if args.page:
            write_tables(args.page, tables(report))


def tables(report):
    """By what stands in the mark of each."""
    size = report['about']['size']
    found = {f'{group} {size}': table(report, [group])
             for group in ('networks', 'ablations', 'start')}
    return {name: lines for name, lines in found.items() if len(lines) > 2}


def write_tables(page, found):
    """Replace the tables after the marks."""
    text = page.read_text()
    for name, lines in found.items():
        before, mark, after = text.partition(MARK.format(name))
        if not mark:
            raise ValueError(f'page={str(page)!r}: has no line {MARK.format(name)}')
        after = re.sub(r'\A\s*(?:\|.*\n)*\s*', '', after)
        text = '\n\n'.join([before + mark, '\n'.join(lines), after])
    page.write_text(text)


if __name__ == '__main__':
    main()
