"""Time detectors with products through oneDNN and through MKL.

Both are measured in turns on one model (use_onednn, undo_onednn).
"""
import argparse
import warnings
from pathlib import Path

import torch
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from benchmarks.reports import origin, save
from benchmarks.shapes import make_shapes
from benchmarks.speed.measure import interleave, spread
from benchmarks.speed.peers import PEERS
from fastervit_mm import get_config
from fastervit_mm.engine.memory import keep_freed_memory
from fastervit_mm.engine.onednn import undo_onednn, use_onednn
from fastervit_mm.models import build_model, switch_to_deploy


def training_step():
    """Training step of the shapes detector."""
    cfg = get_config('mmdet/cascade_fvit_shapes')
    init_default_scope(cfg.default_scope)
    make_shapes(cfg.train_dataloader.dataset.data_root)
    model = build_model(cfg).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    batch = next(iter(Runner.build_dataloader(cfg.train_dataloader, seed=0)))

    def step():
        torch.manual_seed(0)  # the same proposals
        data = model.data_preprocessor(batch, training=True)
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, step


def inference(name, size, deployed=False):
    """A whole network's prediction for one image."""
    network = PEERS[name].build(size).eval()
    if deployed:
        switch_to_deploy(network)
    image = torch.randn(1, 3, *size)

    @torch.no_grad()
    def step():
        network(image)
    return network, step


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=10, help='repetitions (default: 10)')
    parser.add_argument('--size', type=int, nargs=2, default=(800, 1280), metavar=('H', 'W'),
                        help='image of the inference, in pixels (default: 800 1280)')
    parser.add_argument('--out', type=Path, help='write the figures there as JSON')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    keep_freed_memory()
    cpu, results = torch.device('cpu'), {}
    size = tuple(args.size)
    for title, build in {
            'training step, shapes detector': training_step,
            'inference, Cascade Mask R-CNN with FasterViT-2':
                lambda: inference('cascade-fastervit-2', size, deployed=True),
            'inference, Cascade Mask R-CNN with Swin-T': lambda: inference('cascade-swin-t', size),
    }.items():
        model, step = build()
        steps = {'MKL': lambda m=model, s=step: (undo_onednn(m), s()),
                 'oneDNN': lambda m=model, s=step: (use_onednn(m), s())}
        interleave(steps, 2, cpu)
        seconds = interleave(steps, args.rounds, cpu)
        medians = {name: spread(values)[0] for name, values in seconds.items()}
        results[title] = dict(seconds, ratio=medians['MKL'] / medians['oneDNN'])
        print(f'{title}: {1e3 * medians["MKL"]:.0f} ms by MKL, {1e3 * medians["oneDNN"]:.0f} ms by '
              f'oneDNN, {results[title]["ratio"]:.2f} times the speed', flush=True)
    if args.out:
        save(dict(origin(), size=size, results=results), args.out)


if __name__ == '__main__':
    main()
