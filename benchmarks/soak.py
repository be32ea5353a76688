"""Kill and resume a training; compare with an undisturbed run.

    python -m benchmarks.soak --kills 20 --out benchmarks/soak.json

A small detector on generated shapes, with EMA, schedules, and the last and best checkpoint. Each
kill is a SIGKILL: in a training step, in a validation, or while a checkpoint is written. Between
them come a scheduler's notices, each of which has to end in status 75 with nothing lost. Every
start has --resume. In the end weights, EMA, optimizer and metrics have to be equal bit for bit.
"""
import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Set, Tuple

import torch

from benchmarks.reports import origin, save
from benchmarks.shapes import make_shapes
from fastervit_mm.engine.curves import read_run
from fastervit_mm.engine.notices import REQUEUE
from fastervit_mm.weights import read_checkpoint

REPO = Path(__file__).resolve().parents[1]
CONFIG = f"""
_base_ = '{REPO}/configs/mmdet/cascade_fvit_shapes.py'
model = dict(backbone=dict(arch=dict(
    _delete_=True, embed_dim=16, stem_channels=8, depths=(1, 2, 2, 1), num_heads=(1, 1, 2, 4),
    drop_path_rate=0.2)), neck=dict(in_channels=[16, 32, 64, 128]))
train_dataloader = dict(batch_size=2, num_workers=WORKERS, persistent_workers=WORKERS > 0,
                        dataset=dict(indices=IMAGES))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(indices=8))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=EPOCHS, val_interval=1)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=5),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=EPOCHS, convert_to_iter_based=True)]
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(
    max_keep_ckpts=1, save_best='coco/bbox_mAP', rule='greater'))
randomness = dict(seed=0, deterministic=True)
"""
PLACES = ('step', 'validation', 'saving')
NOTICES = (signal.SIGTERM, signal.SIGUSR1)
# Line in the log before each place.
_SIGNS = dict(step='Checkpoints will be saved', validation='Saving checkpoint',
              notice='Epoch(train)')


class Kill(NamedTuple):
    """Kill: its place, iteration reached, and iteration resumed from."""
    place: str
    reached: int
    resumed: Optional[int]


def start(config: Path, work_dir: Path, log: Path) -> subprocess.Popen:
    """Start tools/train.py with --resume in its own process group."""
    with log.open('a') as file:
        return subprocess.Popen(
            [sys.executable, '-W', 'ignore', str(REPO / 'tools/train.py'), str(config),
             '--work-dir', str(work_dir), '--resume'], stdout=file, stderr=file,
            cwd=config.parent, start_new_session=True)


def wait_for(place: str, process: subprocess.Popen, log: Path, since: int, work_dir: Path,
             rng: random.Random, longest: float) -> bool:
    """Wait for a place in a run, then randomly long.

    Returns False if the run ended earlier.
    """
    def ended() -> bool:
        return process.poll() is not None
    def parts() -> Set[Tuple[Path, int]]:
        found = set()
        for path in work_dir.glob('*.pth.part'):
            with suppress(FileNotFoundError):  # it has been renamed
                found.add((path, path.stat().st_mtime_ns))
        return found
    if place == 'saving':
        left = parts()  # by an earlier kill
        while not ended():
            if parts() - left:
                return True
            time.sleep(0.0005)
        return False
    while not ended():
        if _SIGNS[place] in log.read_text(errors='replace')[since:]:
            end = time.monotonic() + rng.uniform(0, longest)
            while time.monotonic() < end and not ended():
                time.sleep(0.002)
            return not ended()
        time.sleep(0.01)
    return False


def state(work_dir: Path) -> Dict[str, torch.Tensor]:
    """Every tensor of the newest checkpoint: weights, EMA and optimizer."""
    path = Path((work_dir / 'last_checkpoint').read_text())
    content = read_checkpoint(str(path))
    found = {f'{part}.{k}': v for part in ('state_dict', 'ema_state_dict')
             for k, v in content[part].items()}
    for index, moments in content['optimizer']['state'].items():
        found.update({f'optimizer.{index}.{k}': torch.as_tensor(v) for k, v in moments.items()})
    found['iter'] = torch.tensor(content['meta']['iter'])
    return found


def metrics(work_dir: Path) -> Dict[str, List]:
    """Losses, learning rates and metrics by iteration."""
    return {name: sorted(dict(points).items()) for name, points in read_run(work_dir).items()
            if not name.endswith(('time', 'memory', 'epoch'))}


def differences(one: Path, two: Path) -> List[str]:
    """Names of tensors and curves that differ between two runs."""
    a, b = state(one), state(two)
    found = [name for name in sorted(a.keys() | b.keys())
             if name not in a or name not in b or not torch.equal(a[name], b[name])]
    a, b = metrics(one), metrics(two)
    return found + [name for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name)]


def soak(folder: Path, kills: int, epochs: int, images: int, workers: int = 0, seed: int = 0,
         longest: float = 6.0, notices: int = 2, begin: Callable = start,
         say: Callable = partial(print, flush=True)) -> Dict[str, object]:
    """Run the campaign.

    Args:
        folder: Empty; the runs and their logs go there.
        kills: Number of kills.
        epochs, images: Length of the training; two images a step.
        workers: Processes that load data. Default 0.
        seed: Seed of the places and times of the kills.
        longest: Most seconds between reaching a place and a kill. Default 6.
        notices: Number of notices, each after an equal share of the kills. Default 2.
        begin: Starts the run, like :func:`start`.
        say: Called with a line for each kill.

    Returns:
        The figures; ``different`` lists differences at the end.
    """
    rng = random.Random(seed)
    make_shapes(folder / 'data/shapes', train=images, val=8)
    config = folder / 'soaked.py'
    config.write_text(CONFIG.replace('IMAGES', str(images)).replace('EPOCHS', str(epochs)).replace(
        'WORKERS', str(workers)))
    plain, killed, log = folder / 'plain', folder / 'killed', folder / 'killed.log'
    began = time.monotonic()
    process = begin(config, plain, folder / 'plain.log')
    if process.wait():
        raise RuntimeError((folder / 'plain.log').read_text()[-3000:])
    undisturbed = time.monotonic() - began
    steps, done, failed, wrong = images // 2, [], 0, 0
    order = [place for _ in range(kills) for place in rng.sample(PLACES, 3)][:kills]
    for number in range(notices):
        order.insert((number + 1) * kills // (notices + 1) + number, 'notice')
    killed.mkdir()
    log.touch()
    for place in order:
        since = log.stat().st_size
        process = begin(config, killed, log)
        there = wait_for(place, process, log, since, killed, rng, longest)
        if not there:
            failed += process.wait() != 0
            say(f'the run ended before its {place}, with status {process.wait()}')
            break
        if place == 'notice':
            os.kill(process.pid, rng.choice(NOTICES))
            wrong += process.wait() != REQUEUE
        else:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        iterations = [point for point, _ in metrics(killed).get('loss', [])]
        done.append(Kill(place, max(iterations, default=0),
                         _begun(log.read_text(errors='replace')[since:])))
        say(f'{len(done)}/{len(order)} {place}: stopped after iteration {done[-1].reached}; it '
            f'had begun at {done[-1].resumed}')
    process = begin(config, killed, log)
    failed += process.wait() != 0
    return dict(
        _counts(done), failed_resumes=failed, notices_with_another_status=wrong, interval=steps,
        half_written=len(list(killed.glob('*.part'))), different=differences(plain, killed),
        tensors=len(state(killed)), iterations=steps * epochs, workers=workers,
        seconds=round(time.monotonic() - began), undisturbed_seconds=round(undisturbed))


def _begun(said: str) -> Optional[int]:
    """Iteration at which a run began; None if killed earlier."""
    resumed = [int(line.rsplit('iter: ', 1)[1]) for line in said.splitlines()
               if 'resumed epoch:' in line]
    return resumed[-1] if resumed else 0 if 'starts at the beginning' in said else None


def _counts(done: List[Kill]) -> Dict[str, object]:
    """Kills by place, and the iterations that they lost."""
    begun = [kill for kill in done if kill.resumed is not None]
    lost = [(a.place, a.reached - b.resumed) for a, b in zip(begun, begun[1:])]
    return dict(
        kills=sum(k.place != 'notice' for k in done),
        places={p: sum(k.place == p for k in done) for p in (*PLACES, 'notice')},
        most_iterations_lost=max((number for _, number in lost), default=0),
        most_lost_on_notice=max((number for place, number in lost if place == 'notice'),
                                default=0))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--kills', type=int, default=20, help='(default: 20)')
    parser.add_argument('--epochs', type=int, default=12, help='(default: 12)')
    parser.add_argument('--images', type=int, default=24, help='(default: 24)')
    parser.add_argument('--workers', type=int, default=0, help='data loaders (default: 0)')
    parser.add_argument('--seed', type=int, default=0, help='of the kills (default: 0)')
    parser.add_argument('--out', type=Path, help='JSON file for the figures')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        facts = soak(Path(folder), args.kills, args.epochs, args.images, args.workers, args.seed)
    facts = dict(origin(), **facts)
    print(json.dumps(facts, indent=1))
    if args.out:
        save(facts, args.out)
    sys.exit(bool(facts['different'] or facts['failed_resumes'] or facts['most_lost_on_notice']
                  or facts['notices_with_another_status']
                  or facts['most_iterations_lost'] > facts['interval']))


if __name__ == '__main__':
    main()
