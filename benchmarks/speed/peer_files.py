"""Time FasterViT beside mmdet's Swin-T in exported detectors.

Weights are random, so no score is above a config's threshold. It is lowered until 1000 boxes of a
noise image remain after NMS. mmdet's Swin has branches on sizes: its files take one size.
"""
import argparse
import sys
import warnings
from pathlib import Path
from typing import List

import torch
from mmengine.config import Config
from mmengine.hub import get_config as mmdets
from torch import nn

from fastervit_mm import export, get_config
from fastervit_mm.command_line import errors_in_one_line
from fastervit_mm.export.heads.boxes import translations
from fastervit_mm.export.metadata import metadata
from fastervit_mm.export.swaps import prepared
from fastervit_mm.export.writing import INPUT, OPSET
from fastervit_mm.models import build_model

from .files import report, show, time_files
from .peers import Size

BOXES = 1000
SWIN = 'mmdet::swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py'
HEADS = {'cascade': range(4), 'retinanet': range(1, 4)}
"""Stages that the neck takes."""
BACKBONES = {'fastervit-0': 64, 'fastervit-2': 96, 'swin-t': 96}
"""Channels of the first stage."""


def config(head: str, backbone: str) -> Config:
    """Cascade Mask R-CNN of this package, or mmdet's RetinaNet for Swin-T, with a backbone."""
    ours = get_config(f'mmdet/cascade_fvit{"_0" if backbone == "fastervit-0" else ""}').model
    swin, stages = mmdets(SWIN).model, HEADS[head]
    model = ours if head == 'cascade' else swin
    model.backbone = dict((swin if backbone == 'swin-t' else ours).backbone, init_cfg=None,
                          out_indices=tuple(stages))
    model.neck.in_channels = [BACKBONES[backbone] * 2**n for n in stages]
    return Config(dict(default_scope='mmdet', model=model))


def network(cfg: Config) -> nn.Module:
    torch.manual_seed(0)
    return build_model(cfg).eval()


@torch.no_grad()
def lower_threshold(cfg: Config, image: torch.Tensor) -> None:
    """Set ``score_thr`` so that :data:`BOXES` of an image remain after NMS."""
    from mmdet.structures import DetDataSample
    settings = cfg.model.test_cfg.get('rcnn', cfg.model.test_cfg)
    number = settings.max_per_img
    settings.update(score_thr=0., max_per_img=BOXES)
    shape = tuple(image.shape[1:])
    sample = DetDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, scale_factor=(1., 1.)))
    found, = network(cfg).test_step(dict(inputs=[image], data_samples=[sample]))
    settings.update(score_thr=found.pred_instances.scores.min().item(), max_per_img=number)


def write(head: str, backbone: str, size: Size, folder: Path) -> List[str]:
    """Write config, checkpoint, float32 and int8 file of a detector, unless they are there.

    Returns:
        What :func:`~.files.time_files` takes.
    """
    name = f'{head}-{backbone}' + f'-{"x".join(map(str, size))}' * (backbone == 'swin-t')
    stem = folder / name
    files = [f'{stem}.py', f'{stem}.pth', f'{stem}.onnx', f'{stem}.int8.onnx']
    if not Path(files[-1]).exists():
        folder.mkdir(parents=True, exist_ok=True)
        images = torch.randint(256, (2, 1, 3, *size), dtype=torch.uint8,
                               generator=torch.Generator().manual_seed(0))
        cfg = config(head, backbone)
        lower_threshold(cfg, images[0, 0])
        cfg.dump(files[0])
        model = network(cfg)
        torch.save(dict(state_dict=model.state_dict(), meta={}), files[1])
        if backbone == 'swin-t':
            write_for_one_size(model, files[2], images[0])
        else:
            export.export(model, files[2], 'whole')
        export.quantize(files[2], files[3], images)
    return ['='.join(files[:2]), *files[2:]]


def write_for_one_size(model: nn.Module, path: str, images: torch.Tensor) -> None:
    """As :func:`fastervit_mm.export.export`, for images of one shape."""
    module = prepared(model, 'whole')
    module.name_outputs(0)
    with torch.no_grad():
        program = torch.onnx.export(
            torch.export.export(module, (images, )), dynamo=True, input_names=[INPUT],
            output_names=module.names, opset_version=OPSET, verbose=False,
            custom_translation_table=translations())
    program.model.metadata_props.update(metadata(model, module, 'whole', True))
    program.save(path)


def main():
    parser = argparse.ArgumentParser(prog='python -m benchmarks.speed.peer_files',
                                     description=__doc__.splitlines()[0])
    parser.add_argument('--heads', nargs='+', choices=HEADS, default=list(HEADS))
    parser.add_argument('--backbones', nargs='+', choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument('--sizes', nargs='+', default=['640x640', '800x1280'], metavar='HxW')
    parser.add_argument('--rounds', type=int, default=5, help='laps of each (default: 5)')
    parser.add_argument('--threads', type=int, default=1, help='(default: 1)')
    parser.add_argument('--folder', type=Path, default=Path('work_dirs/bench/files'),
                        help='for the files, which are kept (default: work_dirs/bench/files)')
    parser.add_argument('--write', action='store_true', help='write the files, time nothing')
    parser.add_argument('--out', type=Path, help='write the figures there as JSON')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(args.threads)
    rows: List[dict] = []
    with errors_in_one_line('peer_files'):
        for head in args.heads:
            for size in [tuple(int(n) for n in size.split('x')) for size in args.sizes]:
                whats = [what for backbone in args.backbones
                         for what in write(head, backbone, size, args.folder)]
                if not args.write:
                    rows += time_files(whats, [size], args.rounds)
                    if args.out:
                        report(rows, args.out)
    if rows:
        show(rows)


if __name__ == '__main__':
    sys.exit(main())
