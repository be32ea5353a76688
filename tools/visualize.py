#!/usr/bin/env python
"""Draw a FasterViT's attention, carriers, feature maps and receptive field."""
import argparse
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from fastervit_mm.command_line import Settings, errors_in_one_line  # noqa: E402
from fastervit_mm.insight import load_subject  # noqa: E402
from fastervit_mm.insight.drawing import draw_all, look  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(
        usage='%(prog)s CONFIG [CHECKPOINT] IMAGE --point X Y --out DIR [options]',
        description=__doc__ + ' The image goes through the config\'s test pipeline.')
    parser.add_argument('config', help='config file of a detector, segmentor or classifier, or a '
                        'variant such as 2')
    # CHECKPOINT is optional, so the two are separated below.
    parser.add_argument('files', nargs='+', metavar='[CHECKPOINT] IMAGE',
                        help='checkpoint, of the whole model or the backbone (default: random '
                        'weights, and the figures say so), and image')
    parser.add_argument('--point', nargs=2, type=float, required=True, metavar=('X', 'Y'),
                        help='a point of the image, in pixels')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the figures')
    parser.add_argument('--head', type=int, help='attention head, from 0 (default: the mean of '
                        'all)')
    parser.add_argument('--block', type=int, help='block of the overview, from 0 (default: the '
                        'one in which the cell attends most to carriers)')
    parser.add_argument('--field-stage', type=int, default=3, choices=[1, 2, 3, 4],
                        help='stage of the receptive field (default: 3)')
    parser.add_argument('--draws', type=int, default=8,
                        help='random draws over which the receptive field is averaged (default: 8)')
    parser.add_argument('--average', nargs='+', default=[], metavar='IMAGE',
                        help='more images to average the receptive field over (default: none)')
    parser.add_argument('--device', default='cpu', help='such as cpu or cuda:0 (default: cpu)')
    parser.add_argument('--cfg-options', nargs='+', action=Settings, metavar='KEY=VALUE',
                        help='settings that replace the config\'s')
    args = parser.parse_args()
    if len(args.files) > 2:
        parser.error(f'give CONFIG [CHECKPOINT] IMAGE; {len(args.files)} files came after CONFIG')
    args.image = args.files[-1]
    args.checkpoint = args.files[0] if len(args.files) == 2 else None
    return args


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    with errors_in_one_line('visualize'):
        subject = load_subject(args.config, args.checkpoint, args.cfg_options, args.device)
        insight = look(subject, args.image, tuple(args.point), args.field_stage, args.draws,
                       args.average)
        paths = draw_all(insight, args.out, args.head, args.block)
    print(f'{subject.name}, {subject.weights}; the network sees '
          f'{insight.prepared.valid[1]} x {insight.prepared.valid[0]} pixels')
    for path in paths:
        print(f'  {path}')


if __name__ == '__main__':
    main()
