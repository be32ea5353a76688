#!/usr/bin/env python
"""Put FasterViT into any config of mmdet or mmseg."""
import argparse
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from fastervit_mm.command_line import errors_in_one_line  # noqa: E402
from fastervit_mm.swapping import VARIANTS, write  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a file, or the name of an installed config, such as '
                        'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
    parser.add_argument('out', metavar='OUT.py', help='config to write')
    parser.add_argument('--arch', choices=VARIANTS, default='2', metavar='ARCH',
                        help='variant of FasterViT (default: 2); it starts from its ImageNet '
                        f'weights, which are not for commercial use: {", ".join(VARIANTS)}')
    parser.add_argument('--force', action='store_true', help='replace OUT.py if it exists')
    return parser.parse_args()


def main():
    args = parse_args()
    with errors_in_one_line('swap_backbone'):
        swapped = write(args.config, args.out, args.arch, args.force)
    for sentence in swapped.changes:
        print(f'- {sentence}')
    out = shlex.quote(args.out)
    print(f'\n{args.out} is written; read it, then:\n  python tools/train.py {out}')


if __name__ == '__main__':
    main()
