"""A config of configs/mmpretrain and a file of the authors give the authors' logits."""
from dataclasses import asdict

import pytest
import torch
from mmengine.config import Config

from fastervit_mm.backbone import VARIANTS
from fastervit_mm.models import load_model
from tests.conftest import REPO
from tests.imagenet.conftest import CONFIGS, SHALLOW, save_as_published, their_model

WHOLE = ('0', '1', '2')


def relative_error(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def test_every_published_file_has_a_config():
    archs = {Config.fromfile(str(path)).model.backbone.arch for path in CONFIGS}
    assert archs == set(VARIANTS) and len(CONFIGS) == 11


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_logits_equal_the_authors(path, tmp_path):
    """0, 1 and 2 as they are; the others at their size, narrower and with fewer blocks.

    tests/backbone/test_oracle.py has all of 0 to 6 at their width, without classifier.
    """
    cfg = Config.fromfile(str(path))
    arch = cfg.model.backbone.arch
    settings = {}
    if arch not in WHOLE:
        settings = dict(depths=list(SHALLOW), dim=64, in_dim=16)
        cfg.model.backbone.arch = dict(asdict(VARIANTS[arch]), depths=SHALLOW, embed_dim=64,
                                       stem_channels=16)
        cfg.model.head.in_channels = 512
    theirs = their_model(arch, **settings)
    ours = load_model(cfg, save_as_published(theirs, tmp_path / 'file.pth.tar'))

    pixels = cfg.test_dataloader.dataset.pipeline[-2].crop_size
    image = torch.randn(1, 3, pixels, pixels)
    with torch.no_grad():
        logits = ours(image, mode='tensor')
        assert logits.shape == (1, 1000)
        assert relative_error(logits, theirs(image)) < 1e-5


def test_logits_without_the_running_mean_differ(tmp_path):
    """The test above would find a BatchNorm that was not loaded."""
    cfg = Config.fromfile(str(REPO / 'configs/mmpretrain/fastervit-0_in1k.py'))
    cfg.model.backbone.arch = dict(asdict(VARIANTS['0']), depths=SHALLOW)
    theirs = their_model('0', depths=list(SHALLOW))
    ours = load_model(cfg, save_as_published(theirs, tmp_path / 'file.pth.tar'))
    ours.backbone.out_norms['3'].running_mean.zero_()
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert relative_error(ours(image, mode='tensor'), theirs(image)) > 1e-3
