"""Compare speed, memory and multiply-adds of backbones."""
import argparse
import sys
import warnings
from pathlib import Path

from rich.console import Console

from benchmarks import speed
from benchmarks.speed.peers import PEERS, SETS
from fastervit_mm.command_line import errors_in_one_line

DEFAULT = ['fastervit-2', 'authors-2', 'swin-t', 'convnext-t']


def parse_args():
    parser = argparse.ArgumentParser(
        prog='python -m benchmarks.speed', description=__doc__,
        epilog='models: ' + ', '.join(PEERS))
    parser.add_argument('--models', nargs='+', default=[],
                        help=f'what to measure; MODEL:MODE sets the mode of one model (default: '
                        f'{" ".join(DEFAULT)}, or none with --set)')
    parser.add_argument('--set', nargs='+', default=[], choices=SETS, dest='sets',
                        help='networks to compare; equal-accuracy: ours and others of '
                        'the same ImageNet accuracy')
    parser.add_argument('--modes', nargs='+', default=['eager'], metavar='MODE',
                        help=f'{", ".join(speed.MODES)}, joined by +; all: every mode that may '
                        'be a network\'s best (default: eager)')
    parser.add_argument('--sizes', nargs='+', default=['800x1280'], metavar='HxW',
                        help='image sizes in pixels (default: 800x1280)')
    parser.add_argument('--batches', nargs='+', type=int, default=[1], help='(default: 1)')
    parser.add_argument('--precisions', nargs='+', default=['fp32'],
                        choices=speed.PRECISIONS, help='(default: fp32)')
    parser.add_argument('--steps', nargs='+', default=['forward'], choices=['forward', 'train'],
                        help='forward, or forward and backward (default: forward)')
    parser.add_argument('--rounds', type=int, default=10, help='measured laps (default: 10)')
    parser.add_argument('--warmup', type=int, default=2, help='steps before them (default: 2)')
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument('--no-memory', action='store_true',
                        help='leave out memory and multiply-adds')
    parser.add_argument('--out', type=Path, metavar='STEM', help='write STEM.json and figures '
                        'STEM-*.png, such as benchmarks/cpu')
    return parser.parse_args()


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    console = Console(width=None if sys.stdout.isatty() else 120)
    target = args.out and args.out.with_suffix('.json')
    with errors_in_one_line('speed'):
        sizes = [tuple(int(n) for n in size.split('x')) for size in args.sizes]
        report = speed.run(
            args.models or ([] if args.sets else DEFAULT), sizes, args.batches, args.precisions,
            args.modes, args.steps, args.rounds, args.warmup, args.device, not args.no_memory,
            console, args.sets, target)
    head = report['machine']
    console.print(', '.join([
        head['gpu'] or head['cpu'], *([] if head['gpu'] else head['matrix_units']),
        f'{head["threads"]} threads', f'torch {head["torch"]}; medians of {args.rounds} rounds',
        'half the interquartile range']), soft_wrap=True)
    for precision, reached in report['matmul_peak_flops'].items():
        console.print(f'matrix product, {precision}: ' + ', '.join(
            f'{value / 1e9:.0f} GFLOP/s ({name})' for name, value in reached.items()))
    for table in speed.tables(report):
        console.print(table)
    if args.out:
        for path in (target, *speed.draw(report, args.out)):
            console.print(f'  {path}', highlight=False)


if __name__ == '__main__':
    main()
