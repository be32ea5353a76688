"""Run steps that need a GPU; see benchmarks/gpu/README.md."""
import argparse
import importlib
import subprocess
import sys
from os import environ
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEPS = {'1': 'correctness', '2': 'training', '3': 'kernels', '4': 'speed-224', '5': 'speed-800',
         '6': 'profiles', '7': 'detector'}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='run.sh', description=__doc__)
    parser.add_argument('steps', nargs='+', metavar='STEP',
                        help=', '.join(f'{n} {name}' for n, name in STEPS.items()) + ', or all')
    parser.add_argument('--rehearse', action='store_true',
                        help='use small sizes, to try the code; always so without a GPU')
    parser.add_argument('--budget', type=float, default=450,
                        help='seconds for each step; cases left out are named. Default 450')
    parser.add_argument('--out', type=Path,
                        default=Path(environ.get('OUT') or ROOT / 'work_dirs/gpu'),
                        help='folder of the results. Default $OUT, else work_dirs/gpu')
    args = parser.parse_args()
    names = []
    for step in STEPS.values() if args.steps == ['all'] else args.steps:
        name = STEPS.get(step, step)
        if name not in STEPS.values():
            parser.error(f'{step!r}: give some of {", ".join(STEPS)}, '
                         f'{", ".join(STEPS.values())}, or all')
        names.append(name)
    args.steps = names
    return args


def main() -> int:
    args = parse_args()
    if len(args.steps) > 1:  # a process each, so that no step affects another
        codes = [subprocess.run([sys.executable, '-W', 'ignore', '-m', 'benchmarks.gpu', step,
                                 '--budget', str(args.budget), '--out', str(args.out)]
                                + ['--rehearse'] * args.rehearse).returncode
                 for step in args.steps]
        return max(codes)
    import torch

    from .report import Report
    cuda = torch.cuda.is_available()
    (name,) = args.steps
    number = next(n for n, step in STEPS.items() if step == name)
    report = Report(f'{number}-{name}', args.out, args.budget,
                    torch.device('cuda' if cuda else 'cpu'), args.rehearse or not cuda)
    module, _, size = name.partition('-')
    importlib.import_module(f'.{module}', __package__).run(report, *[size] * bool(size))
    report.finish()
    return int(report.failed)


if __name__ == '__main__':
    sys.exit(main())
