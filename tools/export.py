#!/usr/bin/env python
"""Export to ONNX or torch.export, check the file, make copies in int8 or float16."""
import argparse
import os
import sys
import warnings
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed

from rich.console import Console  # noqa: E402

from fastervit_mm import export  # noqa: E402
from fastervit_mm.command_line import Settings, errors_in_one_line  # noqa: E402
from fastervit_mm.engine import launch  # noqa: E402
from fastervit_mm.export.check import SIZES, TOLERANCE, print_metrics  # noqa: E402
from fastervit_mm.export.onnx_graph import TOP_K, largest_top_k  # noqa: E402
from fastervit_mm.export.parts import PARTS, choose_input, choose_part  # noqa: E402
from fastervit_mm.export.pictures import INPUTS  # noqa: E402
from fastervit_mm.export.quantize import METHODS, calibration_images  # noqa: E402
from fastervit_mm.export.writing import OPSET, remove  # noqa: E402
from fastervit_mm.models import load_model  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog='The exit status is 1 if the file\'s outputs differ from '
        'PyTorch\'s.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('out', help='OUT.onnx, or OUT.pt2 for torch.export')
    parser.add_argument('--part', choices=PARTS, help='backbone, features (up to the neck) or '
                        'whole (default: whole where the heads can be exported)')
    parser.add_argument('--input', choices=INPUTS, help='what the file takes: uint8 or float32, '
                        'which it normalises and pads, or normalized images (default: for a whole '
                        'network uint8, or float32 if the config reads all bits; else '
                        'normalized)')
    parser.add_argument('--labels', action='store_true',
                        help='export a segmentor\'s labels instead of its logits')
    parser.add_argument('--no-deploy', action='store_true', help='do not fold the backbone')
    parser.add_argument('--opset', type=int, default=OPSET, help=f'ONNX opset (default: {OPSET})')
    parser.add_argument('--check-sizes', nargs='+', type=_size, metavar='BxHxW',
                        default=SIZES, help='batch, height and width of each check (default: '
                        f'{" ".join("x".join(map(str, s)) for s in SIZES)})')
    parser.add_argument('--tolerance', type=float, default=TOLERANCE,
                        help=f'largest relative error allowed (default: {TOLERANCE:g})')
    parser.add_argument('--int8', metavar='FOLDER', help='also write OUT.int8.onnx, calibrated '
                        'on the images of a folder')
    parser.add_argument('--calibration-images', type=int, default=64, metavar='N',
                        help='number of images from that folder (default: 64)')
    parser.add_argument('--calibration', choices=METHODS, default=METHODS[0],
                        help=f'how ranges are determined (default: {METHODS[0]})')
    parser.add_argument('--half', action='store_true', help='also write OUT.fp16.onnx, in float16')
    parser.add_argument('--evaluate', action='store_true', help='also compute the metrics of the '
                        'config\'s test data, with PyTorch and with each file')
    parser.add_argument('--cfg-options', nargs='+', action=Settings, metavar='KEY=VALUE',
                        help='settings that replace the config\'s')
    return parser.parse_args()


def _size(text):
    try:
        images, height, width = (int(n) for n in text.split('x'))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text!r}: give batch, height and width, as 2x256x320') from None
    if images < 1 or min(height, width) < 32:
        raise argparse.ArgumentTypeError(f'{text!r}: at least one image of 32 x 32')
    return images, height, width


def main():
    args = parse_args()
    warnings.simplefilter('ignore')
    with errors_in_one_line('export'):
        sys.exit(run(args))


def run(args):
    console = Console()
    for name in ('int8', 'half'):
        if getattr(args, name) and not args.out.endswith('.onnx'):
            raise export.ExportError(f'--{name}: is made from .onnx, not {args.out!r}')
    if args.evaluate and args.labels:
        raise export.ExportError('--evaluate: metrics are computed from logits; leave --labels out')
    cfg = launch.load_config(args.config, cfg_options=args.cfg_options)
    model = load_model(cfg, args.checkpoint)
    part = choose_part(model, args.part)
    images = args.int8 and calibration_images(cfg, model, args.int8, args.calibration_images,
                                              choose_input(part, args.input, cfg))
    console.print(f'{args.out}: capturing {part} for images of every size, a minute or more ...',
                  highlight=False, soft_wrap=True)
    facts = export.export(model, args.out, part, args.labels, not args.no_deploy, args.opset,
                          args.input, cfg)
    console.print(f'{args.out}: {facts["part"]}, {facts["outputs"]}, {_megabytes(args.out)}',
                  highlight=False, soft_wrap=True)
    if args.out.endswith('.onnx') and (kept := largest_top_k(args.out)) > TOP_K:
        console.print(f'{args.out}: keeps the best {kept} candidates, and TensorRT takes {TOP_K}; '
                      'for it, lower nms_pre or max_per_img in model.test_cfg',
                      highlight=False, soft_wrap=True)
    file = export.ExportedFile(args.out)
    checks = [*export.check_preprocessing(model, file),
              *export.check(model, file, args.check_sizes, args.tolerance)]
    export.print_checks(checks, 'Beside PyTorch, relative', console)
    if not all(check.holds for check in checks):
        remove(args.out)
        console.print(f'{args.out}: not kept, since its outputs differ from PyTorch\'s',
                      highlight=False, soft_wrap=True)
        return 1
    files = {Path(args.out).suffix[1:]: args.out}
    copies = {}
    if args.int8:
        copies['int8'] = partial(export.quantize, images=images, method=args.calibration)
    if args.half:
        copies['fp16'] = export.halve
    for name, write in copies.items():
        files[name] = f'{args.out.removesuffix(".onnx")}.{name}.onnx'
        write(args.out, files[name])
        console.print(f'{files[name]}: {_megabytes(files[name])}', highlight=False, soft_wrap=True)
        export.print_checks(export.check(model, files[name], args.check_sizes, None),
                            f'{name} beside PyTorch, relative, on noise', console)
    if args.evaluate:
        print_metrics(export.evaluate(cfg, args.checkpoint, files), console)
    return 0


def _megabytes(path):
    return f'{os.path.getsize(path) / 1e6:.1f} MB'


if __name__ == '__main__':
    main()
