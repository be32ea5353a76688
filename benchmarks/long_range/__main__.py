"""Compare small networks on the long-range task.

    python -m benchmarks.long_range --seeds 0 1 2 --larger 256 --out benchmarks/long-range.json

Each network is trained by the runner, with the schedule of
benchmarks/configs/fcn_fvit_long_range.py and another backbone. Figures are saved after every
training: when restarted, the program continues with the missing ones. --times times all networks in
turns.
"""
import argparse
from pathlib import Path

from benchmarks.long_range.demo import CONFIG
from benchmarks.long_range.study import (
    NETWORKS,
    Task,
    add_times,
    compare,
    draw,
    table,
)
from fastervit_mm.command_line import Settings, errors_in_one_line


def parse_args():
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.long_range', description=__doc__.split('\n')[0])
    parser.add_argument('--networks', nargs='+', choices=list(NETWORKS), metavar='NAME',
                        help='default: all that fit the windows, of ' + ' '.join(NETWORKS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2],
                        help='(default: 0 1 2)')
    parser.add_argument('--config', default=CONFIG,
                        help='config of the task (default: the repository\'s)')
    parser.add_argument('--size', type=int, default=128,
                        help='side of the images, in pixels (default: 128)')
    parser.add_argument('--window-size', type=int, default=2,
                        help='side of a window, in cells of 16 pixels (default: 2)')
    parser.add_argument('--larger', nargs='+', type=int, default=[], metavar='SIZE',
                        help='sides of larger images on which to evaluate too')
    parser.add_argument('--cfg-options', nargs='+', action=Settings, metavar='KEY=VALUE',
                        help='settings that replace the config\'s')
    parser.add_argument('--times', action='store_true', help='also time a forward pass of each')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/bench/long-range.json'),
                        help='JSON of the figures (default: work_dirs/bench/long-range.json)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/long_range'),
                        help='folder of logs and checkpoints (default: work_dirs/long_range)')
    return parser.parse_args()


def main():
    args = parse_args()
    with errors_in_one_line('long_range'):
        task = Task(args.config, args.size, args.window_size, args.cfg_options)
        report = compare(task, args.networks or task.fitting(), args.seeds, args.out,
                         args.work_dir, args.larger)
        if args.times:
            report = add_times(task, args.out)
        print('\n'.join(table(report)))
        print(draw(report, args.out.with_suffix('')))


if __name__ == '__main__':
    main()
