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
    """Write results, a line for each run, in one step."""
    part = out.with_suffix('.part')
    part.write_text('{' + ',\n'.join(
        f'{json.dumps(part)}: {{\n' + ',\n'.join(
            f' {json.dumps(name)}: {json.dumps(row)}' for name, row in rows.items()) + '}'
        for part, rows in results.items()) + '}\n')
    part.replace(out)


def main() -> None:
    every = parts()
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='Results are in DIR/results.json. A run that has some is left '
        'out; an interrupted one goes on from its last checkpoint.')
    parser.add_argument('parts', nargs='*', choices=[[], *every], metavar='PART',
                        help=f'{", ".join(every)} (default: all, in this order)')
    parser.add_argument('--runs', nargs='+', metavar='NAME', help='only these runs of the parts, '
                        'such as camvid-scratch-0')
    parser.add_argument('--data', type=Path, default=Path('data'), help='folder with '
                        'imagenette128, camvid, nuclei and bccd (default: %(default)s)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/photographs'),
                        metavar='DIR', help='(default: %(default)s)')
    parser.add_argument('--jobs', type=int, default=1, help='runs side by side; set '
                        'OMP_NUM_THREADS to the cores of each (default: %(default)s)')
    parser.add_argument('--processes', type=int, default=1, help='processes of each training, such '
                        'as the number of GPUs (default: %(default)s)')
    parser.add_argument('--amp', choices=['bf16', 'fp16'], help='train and test in mixed precision')
    parser.add_argument('--scale', type=float, default=2. if torch.cuda.is_available() else 1.,
                        help='factor on the sides of images (default: 2 on a GPU, else 1)')
    parser.add_argument('--images', type=int, help='images of each split, and two steps or epochs '
                        'of training, to try the programs (default: all)')
    args = parser.parse_args()
    chosen = [(part, run) for part in args.parts or every for run in every[part]
              if not args.runs or run.name in args.runs]
    unknown = set(args.runs or ()) - {run.name for _, run in chosen}
    if unknown:
        parser.error(f'--runs {" ".join(sorted(unknown))}: not in these parts')
    args.work_dir.mkdir(parents=True, exist_ok=True)
    laboratory = Laboratory(args.data, args.work_dir, args.amp, args.scale, args.images,
                            args.processes)
    out = args.work_dir / 'results.json'
    results = json.loads(out.read_text()) if out.is_file() else {}
    lock = Lock()
    commit = subprocess.check_output(['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, text=True)

    def carry_out(part: str, run: Run) -> None:
        print(f'{part}: {run.name}', flush=True)
        row = dict(vars(run), **laboratory.carry_out(run), amp=args.amp, scale=args.scale,
                   commit=commit.strip(), **origin())
        row['machine'] = {key: row['machine'][key]
                          for key in ('cpu', 'kind', 'cores', 'gpu', 'torch')}
        with lock:
            results.setdefault(part, {})[run.name] = row
            save(results, out)
        print(f'{part}: {run.name}: {row["metrics"]}', flush=True)

    for part in args.parts or every:  # a part starts from what the one before it trained
        with ThreadPoolExecutor(args.jobs) as pool:
            runs = [pool.submit(carry_out, part, run) for of, run in chosen
                    if of == part and run.name not in results.get(part, {})]
            try:
                for run in runs:
                    run.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


if __name__ == '__main__':
    main()
