"""Drawn predictions are legible on images of any size."""
import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import VISUALIZERS, init_default_scope
from mmengine.structures import InstanceData, PixelData

from fastervit_mm.engine.enlarging import enlargement, readable

SIZES = [(160, 160), (120, 160), (640, 480), (90, 640), (2000, 1500)]  # width, height


def drawer(scope, **settings):
    init_default_scope(scope)
    kind = dict(mmdet='DetLocalVisualizer', mmseg='SegLocalVisualizer')[scope]
    visualizer = VISUALIZERS.build(readable(
        dict(type=kind, name=f'{scope}{sorted(settings.items())}', vis_backends=None), **settings))
    visualizer.dataset_meta = dict(classes=('person', 'traffic light'),
                                   palette=[(220, 20, 60), (250, 240, 20)])
    return visualizer


def detections(size):
    """A large object, a tiny one in the middle and one in the lower right corner."""
    from mmdet.structures import DetDataSample
    width, height = size
    boxes = torch.tensor([[.05, .1, .45, .45], [.5, .5, .53, .53], [.95, .95, 1, 1]])
    boxes = boxes * torch.tensor([width, height, width, height])
    masks = np.zeros((3, height, width), bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.round().int().tolist()):
        mask[top:bottom, left:right] = True
    return DetDataSample(pred_instances=InstanceData(
        bboxes=boxes, labels=torch.tensor([0, 1, 1]), scores=torch.tensor([.97, .5, .4]),
        masks=torch.from_numpy(masks)))


@pytest.mark.parametrize('size, times', [
    ((160, 160), 3), ((120, 160), 3), ((30, 20), 3), ((161, 160), 3), ((240, 90), 2),
    ((250, 160), 2), ((479, 479), 2), ((480, 100), 1), ((640, 480), 1), ((4000, 3000), 1)])
def test_only_small_images_are_enlarged(size, times):
    assert enlargement(size[::-1]) == enlargement((*size[::-1], 3)) == times


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
@pytest.mark.parametrize('size', [(160, 120), (640, 480)])
@pytest.mark.parametrize('scale', [None, 1, 2])
def test_a_scale_of_ones_own_counts(scope, size, scale):
    visualizer = drawer(scope, scale=scale)
    image = np.full((*size[::-1], 3), 128, np.uint8)
    if scope == 'mmdet':
        sample = detections(size)
    else:
        from mmseg.structures import SegDataSample
        sample = SegDataSample(pred_sem_seg=PixelData(data=torch.zeros(1, *size[::-1]).long()))
    visualizer.add_datasample('', image, sample, draw_gt=False)
    times = scale or enlargement(image.shape)
    assert visualizer.get_image().shape == (times * size[1], times * size[0], 3)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('which', [0, 1, 2])
def test_labels_of_detections_can_be_read_and_are_whole(size, which):
    visualizer = drawer('mmdet')
    image = np.full((*size[::-1], 3), 128, np.uint8)
    sample = detections(size)
    sample.pred_instances = sample.pred_instances[[which]]  # in narrow images labels overlap
    visualizer.add_datasample('', image, sample, draw_gt=False)
    found = visualizer.get_image()
    height, width = found.shape[:2]
    # A label is a nearly black box: 80 % of black on grey or on a mask.
    dark = (found.max(-1) < 90).astype(np.uint8)
    dark = cv2.morphologyEx(dark, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    _, _, boxes, _ = cv2.connectedComponentsWithStats(dark)
    [(left, top, across, down, _)] = [box for box in boxes[1:] if box[cv2.CC_STAT_AREA] > 200]
    assert down >= 0.9 * max(13, max(width, height) / 70)
    assert left >= 0 and left + across <= width and top + down <= height
    # 'traffic light: 40.0' in the corner: its box is 5 % of the width.
    assert which < 2 or across > 19 * 0.4 * max(13, max(width, height) / 70) or width < 300


def test_many_objects_have_no_labels_that_hide_them():
    visualizer = drawer('mmdet')
    image = np.full((480, 640, 3), 128, np.uint8)
    dark = {}
    for count in (1, 20, 60):
        sample = detections((640, 480))
        sample.pred_instances = InstanceData.cat([sample.pred_instances[[0]]] * count)
        visualizer.add_datasample('', image, sample, draw_gt=False)
        dark[count] = (visualizer.get_image().max(-1) < 90).sum()
    assert dark[20] >= dark[1] > 500 and dark[60] < 50
    # And the next picture has its labels again.
    visualizer.add_datasample('', image, detections((640, 480)), draw_gt=False)
    assert (visualizer.get_image().max(-1) < 90).sum() > 500


@pytest.mark.parametrize('size', SIZES)
def test_names_of_classes_can_be_read_and_are_whole(size):
    from mmseg.structures import SegDataSample
    visualizer = drawer('mmseg')
    image = np.full((*size[::-1], 3), 128, np.uint8)
    labels = torch.zeros(1, *size[::-1]).long()
    labels[..., -size[0] // 8:] = 1  # yellow, at the right edge
    visualizer.add_datasample('', image, SegDataSample(pred_sem_seg=PixelData(data=labels)),
                              draw_gt=False)
    found = visualizer.get_image()
    height, width = found.shape[:2]
    # Names lie on their class's own colour, which areas have only in part.
    for colour in visualizer.dataset_meta['palette']:
        rows, columns = (found == colour).all(-1).nonzero()
        assert np.ptp(rows) + 1 >= 0.75 * max(13, max(width, height) / 70)
        assert np.ptp(columns) > np.ptp(rows)
        inside = found[rows.min():rows.max() + 1, columns.min():columns.max() + 1]
        lightness = inside.astype(float) @ (0.299, 0.587, 0.114)
        background = np.dot(colour, (0.299, 0.587, 0.114))
        letters = abs(lightness - background) > 100
        # Dark on yellow, bright on red; at 90 pixels of width one lies on the other.
        assert 0.05 < letters.mean() < 0.6 or size == (90, 640)


def test_other_visualizers_stay():
    mine = dict(type='MyVisualizer', name='a')
    assert readable(mine, scale=1) is mine
    theirs = dict(type='mmdet.DetLocalVisualizer', line_width=1)
    assert readable(theirs) == dict(type='EnlargedDetVisualizer', line_width=1)
    assert theirs['type'] == 'mmdet.DetLocalVisualizer'
