#!/usr/bin/env python
"""Count parameters, multiply-adds and activations of a network's parts."""
import argparse
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from rich.console import Console  # noqa: E402

from fastervit_mm import complexity  # noqa: E402
from fastervit_mm.command_line import Settings, errors_in_one_line  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__ + ' Multiply-adds are those of convolutions and of every matrix '
        'product, attention\'s included (one multiply-add is two FLOPs); activations are the '
        'elements that convolutions, linear layers and attention write. One image, in inference. A '
        'two-stage detector\'s heads process as many boxes as model.test_cfg allows.')
    parser.add_argument('config', help='config file of a detector, segmentor or classifier, or a '
                        'variant such as 2, for its ImageNet network with classifier')
    parser.add_argument('--shape', nargs=2, type=int, metavar=('H', 'W'),
                        help='height and width of the image in pixels (default: 800 1280 for '
                        'mmdet, 512 2048 for mmseg, else 224 224, or a variant\'s own size)')
    parser.add_argument('--backbone', action='store_true', help='count only the backbone')
    parser.add_argument('--json', type=Path, metavar='FILE',
                        help='also write the figures to FILE')
    parser.add_argument('--cfg-options', nargs='+', action=Settings, metavar='KEY=VALUE',
                        help='settings that replace the config\'s')
    return parser.parse_args()


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    with errors_in_one_line('complexity'):
        result = complexity.analyse(args.config, args.shape, args.cfg_options, args.backbone)
        if args.json:
            result.save(args.json)
    Console().print(complexity.table(result))


if __name__ == '__main__':
    main()
