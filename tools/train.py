#!/usr/bin/env python
"""Train a detector, segmentor or classifier of OpenMMLab."""
import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from fastervit_mm.apis import train  # noqa: E402
from fastervit_mm.command_line import Settings, errors_in_one_line  # noqa: E402
from fastervit_mm.engine.distributed import exit_without_gloo_teardown  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints '
                        '(default: work_dirs/ and the name of the config)')
    parser.add_argument('--amp', nargs='?', const=True, default=False, metavar='bf16|fp16',
                        help='train in mixed precision: bf16 or fp16; without a value, the '
                        'config\'s type, else bf16 for 4-21k, 5 and 6 and fp16 for others')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate to the batch size')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='continue from CHECKPOINT or, without a value, from the newest '
                        'checkpoint in the work directory')
    parser.add_argument('--compile', action='store_true',
                        help='compile backbone and neck (torch.compile)')
    parser.add_argument('--cfg-options', nargs='+', action=Settings, metavar='KEY=VALUE',
                        help='settings that replace the config\'s, such as '
                        'train_dataloader.batch_size=4 or model.neck.in_channels="[64,128]"')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0,
                        help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main():
    args = parse_args()
    with exit_without_gloo_teardown(), errors_in_one_line('train', go_on='go on with --resume'):
        train(args.config, args.work_dir, args.cfg_options, args.amp, args.auto_scale_lr,
              args.resume, args.compile, args.launcher)


if __name__ == '__main__':
    main()
