#!/usr/bin/env python
"""Evaluate a detector, segmentor or classifier of OpenMMLab."""
import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from fastervit_mm.apis import evaluate  # noqa: E402
from fastervit_mm.command_line import Settings, errors_in_one_line  # noqa: E402
from fastervit_mm.engine.distributed import exit_without_gloo_teardown  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file, or a name such as '
                        'fastervit://2-224-1k')
    parser.add_argument('--work-dir', help='folder for logs and metrics '
                        '(default: work_dirs/ and the name of the config)')
    parser.add_argument('--split', default='test', metavar='test|val|...',
                        help='evaluate on the config\'s test_dataloader, its val_dataloader or '
                        'another of its dataloaders, such as imagenet_a (default: test)')
    parser.add_argument('--out', help='where to save predictions: a .pkl file (detectors) or a '
                        'folder of label maps (segmentors)')
    parser.add_argument('--show', action='store_true', help='show predictions in a window')
    parser.add_argument('--show-dir', help='folder for images with predictions drawn on them')
    parser.add_argument('--wait-time', type=float, default=2,
                        help='seconds between two images of --show (default: 2)')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument('--amp', nargs='?', const=True, default=False, metavar='bf16|fp16',
                        help='test in mixed precision: bf16 or fp16; without a value, bf16 if the '
                        'device has it (default: float32)')
    parser.add_argument('--deploy', action='store_true',
                        help='fold the backbone first: same results, faster')
    parser.add_argument('--compile', action='store_true',
                        help='compile backbone and neck (torch.compile)')
    parser.add_argument('--cfg-options', nargs='+', action=Settings, metavar='KEY=VALUE',
                        help='settings that replace the config\'s')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main():
    args = parse_args()
    with exit_without_gloo_teardown(), errors_in_one_line('test'):
        evaluate(args.config, args.checkpoint, args.work_dir, args.cfg_options, args.launcher,
                 out=args.out, show=args.show, show_dir=args.show_dir, wait_time=args.wait_time,
                 tta=args.tta, deploy=args.deploy, compiled=args.compile, split=args.split,
                 amp=args.amp)


if __name__ == '__main__':
    main()
