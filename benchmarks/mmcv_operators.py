"""Compare times of the compiled mmcv's operators and this package's.

Needs a compiled mmcv and a torchvision whose operators load: ``tools/make_env.py --compiled``. On a
CPU mmcv always computes deformable attention by a formula in PyTorch, so that DINO calls neither's
operators: its ratios show the noise.
"""
import argparse
import importlib
import pkgutil
import sys
import warnings
from functools import partial
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from rich.console import Console
from rich.table import Table

from benchmarks.reports import origin, save
from benchmarks.speed.measure import interleave, spread
from fastervit_mm import get_config
from fastervit_mm.models import build_model
from fastervit_mm.operators import ext

GOAL = 1.05
CPU = torch.device('cpu')


def modules():
    """Modules of operators: ours, and mmcv's if compiled."""
    found = importlib.import_module('mmcv._ext')
    return dict(compiled=found, ours=ext) if found.__file__ != ext.__file__ else dict(ours=ext)


def serve(module):
    """Let mmcv's functions call a module's operators."""
    import mmcv.ops
    for found in pkgutil.iter_modules(mmcv.ops.__path__):
        user = importlib.import_module(f'mmcv.ops.{found.name}')
        if hasattr(user, 'ext_module'):
            user.ext_module = module


def boxes(number, smallest, largest, height, width):
    """Random boxes, (number, 4), within an image."""
    sides = smallest + (largest - smallest) * torch.rand(number, 2)
    corners = torch.rand(number, 2) * (torch.tensor([width, height]) - sides)
    return torch.cat([corners, corners + sides], 1)


def roi_align(backward):
    """RoIAlign of 512 boxes on an FPN's first level.

    Its stride is 4; the image has 800 x 1216 pixels.
    """
    from mmcv.ops import roi_align
    maps = torch.randn(1, 256, 200, 304, requires_grad=backward)
    rois = torch.cat([torch.zeros(512, 1), boxes(512, 8, 112, 800, 1216)], 1)

    def step():
        output = roi_align(maps, rois, 7, 0.25, 0, 'avg', True)
        if backward:
            torch.autograd.grad(output, maps, output.detach())
    return step


def nms():
    """NMS of 4000 boxes, as in an RPN."""
    from mmcv.ops import nms
    corners, scores = boxes(4000, 16, 256, 800, 1216), torch.rand(4000)
    return lambda: nms(corners, scores, 0.7)


def detector(config, batch, size):
    """Training step and prediction of a detector on random data."""
    cfg = get_config(config)
    cfg.model.backbone.init_cfg = None
    cfg.optim_wrapper.optimizer.lr = 0.  # every step computes the same
    model = build_model(cfg)
    model.init_weights()
    from mmdet.testing import demo_mm_inputs
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    data = demo_mm_inputs(batch, (3, *size), num_classes=4, with_mask=True)
    one = demo_mm_inputs(1, (3, *size))

    def training():
        torch.manual_seed(0)  # the same proposals
        model.train().train_step(data, wrapper)
    return training, lambda: model.eval().test_step(one)


def steps():
    """Calls to time, by name."""
    torch.manual_seed(0)
    found = {'RoIAlign, forward': roi_align(backward=False),
             'RoIAlign, forward and backward': roi_align(backward=True), 'nms of 4000': nms()}
    for name, *settings in (('Cascade Mask R-CNN of the shapes', 'mmdet/cascade_fvit_shapes', 5,
                             (160, 160)),
                            ('DINO with FasterViT-0', 'mmdet/dino_fvit_0', 1, (320, 320))):
        found[f'{name}, training step'], found[f'{name}, prediction'] = detector(*settings)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=10, help='laps of each (default: 10)')
    parser.add_argument('--threads', type=int, nargs='+', default=[1, 2], help='default: 1 2')
    parser.add_argument('--out', type=Path, help='write the figures there as JSON')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    MMLogger.get_instance('operators', log_level='ERROR')  # a line for each weight
    if 'compiled' not in modules():
        sys.exit('mmcv: has no compiled operators to compare with. Build them: '
                 'tools/make_env.py --compiled')
    table, rows = Table(title='Milliseconds, medians of laps in turns'), []
    for column in ('', 'threads', *modules(), 'ratio'):
        table.add_column(column, justify='right' if column else 'left')
    for name, step in steps().items():
        for threads in args.threads:
            torch.set_num_threads(threads)
            turns = {key: partial(lambda module, step: (serve(module), step()), module, step)
                     for key, module in modules().items()}
            interleave(turns, 1, CPU)
            seconds = interleave(turns, args.rounds, CPU)
            medians = {key: spread(values)[0] for key, values in seconds.items()}
            ratio = medians['ours'] / medians['compiled']
            rows.append(dict(step=name, threads=threads, seconds=seconds, ratio=ratio))
            table.add_row(name, str(threads), *(f'{1e3 * value:.1f}' for value in medians.values()),
                          f'{ratio:.3f}' + ' above 1.05' * (ratio > GOAL))
            print(f'{name}, {threads} threads: {ratio:.3f}', flush=True)
    Console(width=100).print(table)
    if args.out:
        save(dict(origin(), goal=GOAL, rows=rows), args.out)


if __name__ == '__main__':
    main()
