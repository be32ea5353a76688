"""Differences of mmdet's DINO from the official one: image sizes, bound of references."""
import numpy as np
import pytest
import torch
from mmdet.registry import TRANSFORMS
from mmengine.registry import init_default_scope
from PIL import Image

from fastervit_mm.dino import OfficialDINOResize


@pytest.mark.parametrize('size, expected', [
    # Width and height before, and after as the official code's rule gives them: the shorter side
    # 800 and the longer rounded down; or, where that passes 1333, the shorter one rounded.
    ((640, 480), (1066, 800)), ((480, 640), (800, 1066)), ((500, 375), (1066, 800)),
    ((640, 427), (1199, 800)), ((427, 640), (800, 1199)), ((500, 500), (800, 800)),
    ((640, 360), (1333, 750)), ((640, 206), (1332, 429)), ((300, 1000), (400, 1333)),
    ((352, 230), (1224, 800))])
def test_images_have_the_official_size_and_pillow_s_pixels(size, expected):
    image = np.random.RandomState(0).randint(0, 256, (*size[::-1], 3), np.uint8)
    results = OfficialDINOResize().transform(dict(img=image))
    assert results['img'].shape == (*expected[::-1], 3)
    assert results['scale_factor'] == (expected[0] / size[0], expected[1] / size[1])
    resized = Image.fromarray(image).resize(expected, Image.BILINEAR)
    assert np.array_equal(results['img'], np.asarray(resized))


def test_it_is_registered_and_takes_other_sides():
    init_default_scope('mmdet')
    resize = TRANSFORMS.build(dict(type='OfficialDINOResize', short=200, longest=333))
    for size in ((480, 640), (640, 480)):  # one after the other: nothing stays from the first
        image = np.zeros((*size, 3), np.uint8)
        assert min(resize.transform(dict(img=image))['img'].shape[:2]) == 200


def test_references_at_the_border_are_bounded_as_in_the_official_code():
    """A box as large as the image: mmdet's own head would put it elsewhere."""
    from fastervit_mm.dino import OfficialDINOHead
    init_default_scope('mmdet')
    head = OfficialDINOHead(num_classes=3, embed_dims=8, num_pred_layer=2, as_two_stage=True,
                            share_pred_layer=False, num_reg_fcs=2,
                            loss_cls=dict(type='FocalLoss', use_sigmoid=True))
    head.init_weights()  # the last layer of each box head is zero: the references themselves
    references = [torch.tensor([[[0.5, 0.5, 1., 0.]]]), torch.tensor([[[0.2, 0.3, 0.4, 0.5]]])]
    _, boxes = head(torch.rand(2, 1, 1, 8), references)
    torch.testing.assert_close(boxes[0, 0, 0], torch.tensor([0.5, 0.5, 0.999, 0.001]),
                               rtol=0, atol=1e-4)
    torch.testing.assert_close(boxes[1], references[1])
