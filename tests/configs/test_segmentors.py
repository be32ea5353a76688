"""Every segmentor's config builds what it says."""
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample

from benchmarks.recipes import RECIPES
from fastervit_mm.backbone import VARIANTS
from fastervit_mm.weights import resolve
from tests.conftest import REPO

CONFIGS = [path for path in sorted((REPO / 'configs/mmseg').glob('upernet_fvit*.py'))
           if f'mmseg/{path.stem}' not in RECIPES]
FROM_SCRATCH = ('upernet_fvit_shapes', 'upernet_fvit_small')
PUBLISHED = [p for p in CONFIGS if p.stem not in FROM_SCRATCH]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_builds_with_matching_widths(path):
    cfg = Config.fromfile(str(path))
    with torch.device('meta'):
        widths = MODELS.build(cfg.model.backbone).out_channels
    assert tuple(cfg.model.decode_head.in_channels) == widths
    # Stage 3 of the paper, which counts from 1.
    assert cfg.model.auxiliary_head.in_index == 2
    assert cfg.model.auxiliary_head.in_channels == widths[2]
    if path in PUBLISHED:
        checkpoint, arch = cfg.model.backbone.init_cfg.checkpoint, cfg.model.backbone.arch
        assert resolve(checkpoint) != checkpoint
        assert checkpoint == f'fastervit://{arch}{"" if "21k" in arch else "-224-1k"}'


def test_the_variants_that_have_a_config():
    archs = [Config.fromfile(str(p)).model.backbone.arch for p in PUBLISHED]
    of_21k = {name for name in VARIANTS if '21k' in name}
    assert set(archs) == {'0', '1', '2', '3', '4'} | of_21k
    at_640 = {Config.fromfile(str(p)).model.backbone.arch for p in PUBLISHED if '640' in p.stem}
    assert at_640 == of_21k


@pytest.mark.parametrize('path', PUBLISHED, ids=lambda p: p.stem)
def test_upernets_recipe_is_the_papers(path):
    cfg = Config.fromfile(str(path))
    crop = (640, 640) if '640' in path.stem else (512, 512)
    assert (cfg.model.decode_head.type, cfg.model.auxiliary_head.type) == ('UPerHead', 'FCNHead')
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 150
    assert cfg.model.decode_head.norm_cfg.type == 'SyncBN' and cfg.sync_bn == 'torch'
    assert cfg.model.data_preprocessor.size == crop
    assert cfg.model.test_cfg == dict(mode='whole', crop_size=crop, stride=(
        crop[0] * 2 // 3, crop[0] * 2 // 3))
    crops = [t for t in cfg.train_dataloader.dataset.pipeline if t.type == 'RandomCrop']
    assert [t.crop_size for t in crops] == [crop]
    assert cfg.train_dataloader.dataset.type == 'ADE20KDataset'
    assert cfg.train_cfg.type == 'IterBasedTrainLoop' and cfg.train_cfg.max_iters == 160000
    warm_up, poly = cfg.param_scheduler
    assert (warm_up.type, warm_up.begin, warm_up.end, warm_up.by_epoch) == (
        'LinearLR', 0, 1500, False)
    assert (poly.type, poly.power, poly.begin, poly.end, poly.eta_min, poly.by_epoch) == (
        'PolyLR', 1.0, 1500, 160000, 0.0, False)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.betas, optimizer.weight_decay) == (
        'AdamW', 6e-5, (0.9, 0.999), 0.01)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.optim_wrapper.paramwise_cfg == cfg.fastervit_paramwise_cfg
    assert cfg.optim_wrapper.constructor == 'MergedOptimWrapperConstructor'
    assert cfg.train_dataloader.batch_size == 2 and cfg.auto_scale_lr.base_batch_size == 16
    # Single scale, and multi-scale with flip as published.
    assert [t.scale for t in cfg.test_pipeline if t.type == 'Resize'] == [(4 * crop[0], crop[0])]
    scales, flips, *_ = cfg.tta_pipeline[-1].transforms
    assert [t.scale_factor for t in scales] == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    assert [t.prob for t in flips] == [0, 1] and cfg.tta_model.type == 'SegTTAModel'


@pytest.fixture(scope='module')
def segmentor():
    """The real config's segmentor with a small backbone and head; its weights are not trained."""
    from mmengine.model import revert_sync_batchnorm
    torch.manual_seed(0)
    cfg = Config.fromfile(str(REPO / 'configs/mmseg/upernet_fvit.py'))
    init_default_scope('mmseg')
    cfg.merge_from_dict({
        'model.backbone': dict(_delete_=True, type='FasterViT', arch=dict(
            embed_dim=16, stem_channels=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 4))),
        'model.decode_head.in_channels': [16, 32, 64, 128], 'model.decode_head.channels': 16,
        'model.auxiliary_head.in_channels': 64, 'model.auxiliary_head.channels': 16,
        'model.test_cfg.crop_size': (96, 128), 'model.test_cfg.stride': (60, 80)})
    return revert_sync_batchnorm(MMSEG_MODELS.build(cfg.model)).eval()


def segment(segmentor, image, mode):
    sample = SegDataSample(metainfo=dict(
        ori_shape=image.shape[1:], img_shape=image.shape[1:], pad_shape=image.shape[1:]))
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, *image.shape[1:], dtype=torch.long))
    segmentor.test_cfg.mode = mode
    data = segmentor.data_preprocessor(dict(inputs=[image], data_samples=[sample]))
    with torch.no_grad():
        return segmentor.predict(data['inputs'], data['data_samples'])[0]


@pytest.mark.parametrize('mode', ['whole', 'slide'])
@pytest.mark.parametrize('size', [(32, 32), (33, 401), (250, 130)])
def test_images_of_any_size(segmentor, size, mode):
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    result = segment(segmentor, image, mode)
    assert result.pred_sem_seg.data.shape == (1, *size)
    assert result.seg_logits.data.shape == (150, *size)
    assert result.seg_logits.data.isfinite().all()


def test_sliding_windows_average_where_they_overlap(segmentor):
    """An image of one window equals whole inference; in a larger one, each corner its window's."""
    one = torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8)
    whole = segment(segmentor, one, 'whole').seg_logits.data
    torch.testing.assert_close(segment(segmentor, one, 'slide').seg_logits.data, whole)
    image = torch.randint(0, 256, (3, 156, 208), dtype=torch.uint8)  # 2 x 2 windows
    slid = segment(segmentor, image, 'slide').seg_logits.data
    corner = segment(segmentor, image[:, 60:, 80:], 'whole').seg_logits.data
    torch.testing.assert_close(slid[:, 96:, 128:], corner[:, 36:, 48:], rtol=1e-4, atol=1e-5)
    first = segment(segmentor, image[:, :96, :128], 'whole').seg_logits.data
    torch.testing.assert_close(slid[:, :60, :80], first[:, :60, :80], rtol=1e-4, atol=1e-5)
