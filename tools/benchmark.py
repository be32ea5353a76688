#!/usr/bin/env python
"""Compare speed, memory and multiply-adds of backbones; cases take turns in one process."""
import argparse
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from rich.console import Console  # noqa: E402

from fastervit_mm import benchmark  # noqa: E402
from fastervit_mm.benchmark.peers import PEERS  # noqa: E402
from fastervit_mm.command_line import errors_in_one_line  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='models: ' + ', '.join(PEERS))
    parser.add_argument('--models', nargs='+', default=['fastervit-2', 'authors-2', 'swin-t',
                                                        'convnext-t'],
                        help='what to measure; MODEL:MODE sets the mode of one model')
    parser.add_argument('--modes', nargs='+', default=['eager'], metavar='MODE',
                        help=f'{", ".join(benchmark.MODES)}, joined by + (default: eager)')
    parser.add_argument('--sizes', nargs='+', default=['800x1280'], metavar='HxW',
                        help='image sizes in pixels (default: 800x1280)')
    parser.add_argument('--batches', nargs='+', type=int, default=[1], help='(default: 1)')
    parser.add_argument('--precisions', nargs='+', default=['fp32'],
                        choices=benchmark.PRECISIONS, help='(default: fp32)')
    parser.add_argument('--steps', nargs='+', default=['forward'], choices=['forward', 'train'],
                        help='forward, or forward and backward (default: forward)')
    parser.add_argument('--rounds', type=int, default=10, help='measured repetitions (default: 10)')
    parser.add_argument('--warmup', type=int, default=2, help='repetitions before (default: 2)')
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument('--no-memory', action='store_true',
                        help='leave out memory and multiply-adds')
    parser.add_argument('--out', type=Path, metavar='STEM', help='write STEM.json and figures '
                        'STEM-*.png, such as benchmarks/cpu')
    return parser.parse_args()


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    console = Console()
    with errors_in_one_line('benchmark'):
        sizes = [tuple(int(n) for n in size.split('x')) for size in args.sizes]
        report = benchmark.run(args.models, sizes, args.batches, args.precisions, args.modes,
                               args.steps, args.rounds, args.warmup, args.device,
                               not args.no_memory, console)
    head = report['machine']
    console.print(f'{head["gpu"] or head["cpu"]}, {head["threads"]} threads, torch '
                  f'{head["torch"]}; medians of {args.rounds} rounds, half the '
                  'interquartile range', soft_wrap=True)
    for precision, reached in report['matmul_peak_flops'].items():
        console.print(f'matrix product, {precision}: ' + ', '.join(
            f'{value / 1e9:.0f} GFLOP/s ({name})' for name, value in reached.items()))
    for table in benchmark.tables(report):
        console.print(table)
    for r in report['results']:
        if r['error']:
            console.print(f'{r["model"]}, {r["mode"]}, {r["precision"]}, {r["step"]}: {r["error"]}',
                          soft_wrap=True)
    if args.out:
        benchmark.save(report, args.out.with_suffix('.json'))
        for path in (args.out.with_suffix('.json'), *benchmark.draw(report, args.out)):
            console.print(f'  {path}', highlight=False)


if __name__ == '__main__':
    main()
