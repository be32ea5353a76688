"""Train and test on photographs, part by part."""
import argparse
import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Dict

import torch

from benchmarks.reports import origin

from .carry_out import ROOT, Laboratory
from .parts import Run, parts


def save(results: Dict[str, Dict[str, dict]], out: Path) -> None:
    """Write results, a line for each run."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text('{' + ',\n'.join(
        f'{json.dumps(part)}: {{\n' + ',\n'.join(
            f' {json.dumps(name)}: {json.dumps(row)}' for name, row in rows.items()) + '}'
        for part, rows in results.items()) + '}\n')


def main() -> None:
    every = parts()
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='A run with results in OUT is left out, and an interrupted '
        'one goes on from its last checkpoint.')
    parser.add_argument('parts', nargs='*', choices=[[], *every], metavar='PART',
                        help=f'{", ".join(every)} (default: all, in this order)')
    parser.add_argument('--runs', nargs='+', metavar='NAME', help='of the parts\' runs, such as '
                        'camvid-scratch-0 (default: all)')
    parser.add_argument('--data', type=Path, default=Path('data'), help='folder with '
                        'imagenette128, camvid, nuclei and bccd (default: %(default)s)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/photographs'),
                        help='(default: %(default)s)')
    parser.add_argument('--out', type=Path, default=ROOT / 'benchmarks/photographs.json',
                        help='results (default: %(default)s)')
    parser.add_argument('--jobs', type=int, default=1, help='runs side by side; set '
                        'OMP_NUM_THREADS to the cores of each (default: %(default)s)')
    parser.add_argument('--amp', choices=['bf16', 'fp16'], help='train and test in mixed precision')
    parser.add_argument('--scale', type=float, default=2. if torch.cuda.is_available() else 1.,
                        help='factor on the sides of images (default: 2 on a GPU, else 1)')
    parser.add_argument('--images', type=int, help='images of each split, and two steps or epochs '
                        'of training, to try the programs (default: all)')
    args = parser.parse_args()
    laboratory = Laboratory(args.data, args.work_dir, args.amp, args.scale, args.images)
    results = json.loads(args.out.read_text()) if args.out.is_file() else {}
    lock = Lock()
    commit = subprocess.check_output(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, text=True)

    def carry_out(part: str, run: Run) -> None:
        if run.name in results.get(part, {}) or args.runs and run.name not in args.runs:
            return
        print(f'{part}: {run.name}', flush=True)
        figures = laboratory.carry_out(run)
        came = origin()
        came['machine'] = {key: came['machine'][key] for key in ('cpu', 'kind', 'cores', 'gpu',
                                                                 'torch')}
        row = dict(vars(run), **figures, amp=args.amp, scale=args.scale, commit=commit.strip(),
                   **came)
        with lock:
            results.setdefault(part, {})[run.name] = row
            save(results, args.out)
        print(f'{part}: {run.name}: {row["metrics"]}', flush=True)

    for part in args.parts or every:
        with ThreadPoolExecutor(args.jobs) as pool:
            for done in [pool.submit(carry_out, part, run) for run in every[part]]:
                done.result()


if __name__ == '__main__':
    main()
