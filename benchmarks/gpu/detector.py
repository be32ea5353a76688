"""Step 7: mmdet's detectors, against the CPU and in training."""
import copy
import gc
from typing import Dict, List, Tuple

import torch
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.structures import InstanceData
from torch import Tensor, nn

from benchmarks.speed.measure import Laps, peak_memory, spread
from fastervit_mm.config_files import read_config
from fastervit_mm.engine.precision import choose_for_training, keep_boxes_exact
from fastervit_mm.models import build_model

from .networks import TINY, distance, exact, sized, worst
from .report import Report
from .training import cast

SWIN = 'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_amp-ms-crop-3x_coco.py'
# Configs; the backbone of a second one replaces the first one's.
DETECTORS: Dict[str, Tuple[str, ...]] = {
    'Cascade Mask R-CNN, FasterViT-2': ('mmdet/cascade_fvit',),
    'Cascade Mask R-CNN, Swin-T': ('mmdet/cascade_fvit', SWIN),
    'DINO, FasterViT-4': ('mmdet/dino_fvit_4',),
    'Mask R-CNN, Swin-T': (SWIN,)}
OURS = [name for name in DETECTORS if 'FasterViT' in name]

FULL = dict(small=(256, 320), size=(800, 1333), batches=(2, 8), steps=20)
REHEARSAL = dict(small=(64, 96), size=(64, 96), batches=(1,), steps=1)
# Largest error relative to losses and to the gradients' norm; largest share of predictions without
# an equal one, and of differing mask pixels. Between a CPU's kernels these are 7e-6, 8e-3 (a ReLU
# near 0 passes its gradient or not), 0 and 7e-6.
BOUNDS = dict(losses=1e-3, gradients=0.05, predictions=0.02, masks=1e-3)


def run(report: Report) -> None:
    plan = REHEARSAL if report.rehearse else FULL
    MMLogger.get_instance('gpu', log_level='ERROR')  # else a line for each weight
    if not report.cuda:
        report.skip('equal', 'CUDA beside CPU', 'needs CUDA; here the CPU without oneDNN')
        report.skip('equal', 'deformable attention', 'needs CUDA; on a CPU mmcv has a formula')
        report.skip('training', 'AmpOptimWrapper', 'needs CUDA; here OptimWrapper under autocast')
    for name in OURS:
        report.run('equal', name, equal, report, plan, name)
    for name in DETECTORS:
        report.run('training', name, training, report, plan, name, needs=15)


def config(name: str, tiny: bool, few: bool) -> Config:
    """A detector's config, for random weights.

    ``tiny``: our configs with small backbones. ``few``: few boxes, all taken and none moved at
    random, so that rounding does not change the choice.
    """
    cfg, *others = map(read_config, DETECTORS[name])
    model = cfg.model
    for other in others:
        model.backbone = other.model.backbone
    model.backbone.init_cfg = None
    if tiny and name in OURS:
        model.backbone.arch = TINY
        model.neck.in_channels = [TINY['embed_dim'] * 2**i
                                  for i in model.backbone.get('out_indices', range(4))]
    if few:
        model.backbone.drop_path_rate = 0.
        if 'dn_cfg' in model:
            model.num_queries = 30
            model.dn_cfg.update(label_noise_scale=1e-9, box_noise_scale=1e-9)
        else:
            model.test_cfg.rcnn.score_thr = 0.
            for proposals in (model.train_cfg.rpn_proposal, model.test_cfg.rpn):
                proposals.update(nms_pre=50, max_per_img=10)
    return cfg


def build(cfg: Config) -> nn.Module:
    gc.collect()
    torch.cuda.empty_cache()
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    return model


def inputs(batch: int, size: Tuple[int, int]) -> dict:
    """Random images, boxes and masks, the same at each call."""
    return demo_mm_inputs(batch, (3, *size), num_classes=80, with_mask=True)


def equal(report: Report, plan: dict, name: str) -> None:
    """Compare losses, gradients and predictions in float32 with the CPU's."""
    model = build(config(name, report.rehearse, few=True))
    with torch.no_grad():
        for parameter in model.parameters():  # makes classes and boxes differ
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    twin = copy.deepcopy(model).to(report.device)
    with exact():
        losses, gradients, predictions = outputs(model, plan['small'])
        with torch.backends.mkldnn.flags(enabled=False):
            found = outputs(twin, plan['small'])
    for part, value in dict(losses=worst([abs(found[0][k] / v - 1) for k, v in losses.items()]),
                            gradients=distance(found[1], gradients),
                            **apart(found[2], predictions)).items():
        report.check('equal', f'{name}, {sized(plan["small"])}: {part}', value,
                     at_most=BOUNDS[part], losses=losses)


def outputs(model: nn.Module, size: Tuple[int, int]) -> tuple:
    """Losses by name, all gradients as one vector, and predictions."""
    torch.manual_seed(0)
    data = model.train().data_preprocessor(inputs(1, size), training=True)
    loss, parts = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    (sample,) = model.eval().test_step(inputs(1, size))
    return ({name: float(value) for name, value in parts.items() if 'loss' in name},
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]),
            sample.pred_instances.detach().cpu())


def apart(found: InstanceData, right: InstanceData) -> Dict[str, float]:
    """Shares of differing predictions and of differing mask pixels."""
    near = ((found.labels[:, None] == right.labels)
            & ((found.scores[:, None] / right.scores - 1).abs() < 1e-3)
            & ((found.bboxes[:, None] - right.bboxes).abs().amax(2) < 0.1))
    paired, of = near.int().max(0)
    shares = dict(predictions=float((paired == 0).float().mean()))
    if 'masks' in right:
        shares['masks'] = float((found.masks[of] != right.masks)[paired > 0].float().mean())
    return shares


def training(report: Report, plan: dict, name: str) -> None:
    """Measure training steps in bfloat16: time and peak memory."""
    cfg = config(name, report.rehearse, few=report.rehearse)
    choose_for_training(cfg, 'bf16' if report.cuda else False)
    model = build(cfg).to(report.device).train()
    keep_boxes_exact(model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    for batch in plan['batches']:
        case, data = f'{name}, {sized(plan["size"])}, batch {batch}', inputs(batch, plan['size'])
        losses: List[Tensor] = []

        def step(data=data, losses=losses) -> None:
            with cast(report.device, torch.bfloat16):
                losses.append(model.train_step(data, wrapper)['loss'].detach())
        try:
            laps = Laps(step, report.device, lap_seconds=0)
            seconds = [laps.lap() for _ in range(plan['steps'])]
            memory = torch.cuda.memory_allocated() + peak_memory(step, report.device)
        except torch.cuda.OutOfMemoryError as error:
            report.skip('training', case, str(error)[:100])
            continue
        median, low, high = spread(seconds)
        report.add('training', case, median, unit='s an iteration',
                   note=f'{batch / median:.1f} images/s, {memory / 2**30:.1f} GiB at most, '
                        f'± {50 * (high - low) / median:.1f} %',
                   seconds=seconds, peak_bytes=memory)
        report.check('training', f'{case}: finite losses',
                     int(torch.stack(losses).isfinite().sum()), at_least=len(losses),
                     losses=list(map(float, losses)))
