"""Inputs as in a test run, and the figures of tools/visualize.py."""
import runpy
import sys
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from matplotlib import image as mpimg
from matplotlib.figure import Figure

from benchmarks.shapes.scenes import draw_scene
from fastervit_mm import FasterViT, SwinHAT
from fastervit_mm.backbone.attention import Attention
from fastervit_mm.backbone.positions import RelativePositionBias
from fastervit_mm.engine import launch
from fastervit_mm.insight import load_subject, subject_of
from fastervit_mm.insight.attention import main_stage
from fastervit_mm.insight.drawing import draw_all, draw_overview, draw_place, look
from fastervit_mm.models import build_model
from tests.conftest import CLASSIFIER, REPO, TINY

SEG = str(REPO / 'configs/mmseg/upernet_fvit_shapes.py')
DET = str(REPO / 'configs/mmdet/cascade_fvit_shapes.py')


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    path = tmp_path_factory.mktemp('classifier') / 'tiny_classifier.py'
    path.write_text(CLASSIFIER)
    return str(path)


@pytest.fixture(scope='module')
def picture(tmp_path_factory):
    """190 x 300 pixels, black but for a white square around x = 210, y = 60."""
    path = tmp_path_factory.mktemp('picture') / 'square.png'
    pixels = np.zeros((190, 300, 3), np.uint8)
    pixels[50:71, 200:221] = 255
    mmcv.imwrite(pixels, str(path))
    return str(path)


@pytest.mark.parametrize('config, size, valid', [
    (DET, (128, 160), (101, 160)),  # 160 wide, padded to a multiple of 32
    (SEG, (190, 300), (190, 300)),
    ('classifier', (224, 224), (224, 224)),  # short side 256, by pillow; the middle cut out
    ('0', (190, 300), (190, 300)),
], ids=['mmdet', 'mmseg', 'mmpretrain', 'bare'])
def test_a_point_follows_its_object_through_the_pipeline(config, size, valid, classifier, picture):
    subject = load_subject(classifier if config == 'classifier' else config)
    assert 'random' in subject.weights
    prepared = subject.prepare(picture)
    assert prepared.inputs.shape == (1, 3, *size)
    assert prepared.valid == valid and prepared.picture.shape == (*size, 3)
    # Where the network's own input is bright is where the point went.
    bright = prepared.inputs[0].mean(0) > prepared.inputs[0].mean(0).max() / 2
    rows, columns = bright.nonzero().T.double()
    x, y = prepared.to_inputs((210, 60))
    assert abs(x - columns.mean()) <= 0.75 and abs(y - rows.mean()) <= 0.75
    # The picture that is drawn shows it there too, and padding grey.
    assert (prepared.picture[y, x] == 255).all()
    height, width = valid
    outside = np.concatenate([prepared.picture[height:].ravel(),
                              prepared.picture[:, width:].ravel()])
    assert (outside == 190).all() and outside.size == 3 * (size[0] * size[1] - height * width)


def test_a_point_that_the_pipeline_cuts_away_is_refused(classifier, picture):
    prepared = load_subject(classifier).prepare(picture)
    with pytest.raises(ValueError, match='the network sees x from 67 to 232'):
        prepared.to_inputs((20, 60))


@pytest.mark.parametrize('name', ['mmdet/cascade_fvit_0.py', 'mmseg/upernet_fvit_0.py'])
def test_inputs_are_those_of_a_test_run(name, tiny_coco, tiny_ade20k):
    from mmengine.dataset import pseudo_collate
    from mmengine.registry import DATASETS, init_default_scope
    root = tiny_coco if name.startswith('mmdet') else tiny_ade20k
    cfg = launch.load_config(str(REPO / 'configs' / name))
    cfg.test_dataloader.dataset.data_root = f'{root}/'
    model = build_model(cfg)
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    subject = subject_of(model, cfg)
    for index in (0, 5):
        batch = model.data_preprocessor(pseudo_collate([dataset[index]]), training=False)
        info = dataset.get_data_info(index)
        prepared = subject.prepare(info['img_path'])
        torch.testing.assert_close(prepared.inputs, batch['inputs'], atol=0, rtol=0)
        assert prepared.valid == tuple(batch['data_samples'][0].img_shape)


@pytest.fixture(scope='module')
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp('scene') / 'scene.png'
    mmcv.imwrite(np.hstack([draw_scene(1).image, draw_scene(2).image[:, :90]]), str(path))
    return str(path)  # 160 x 250: 10 x 16 cells, 2 x 4 windows of 5


def visualize(monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', ['visualize.py', *map(str, arguments)])
    runpy.run_path(str(REPO / 'tools/visualize.py'), run_name='__main__')


def test_the_tool_draws_a_trained_network(monkeypatch, tmp_path, scene, capsys):
    checkpoint = tmp_path / 'trained.pth'
    torch.save(dict(state_dict=build_model(launch.load_config(SEG)).state_dict()), checkpoint)
    visualize(monkeypatch, SEG, checkpoint, scene, '--point', 200, 40, '--out', tmp_path / 'out')
    said = capsys.readouterr().out
    assert 'trained.pth; the network sees 250 x 160 pixels' in said and 'random' not in said
    names = ['overview.jpg', 'attention_stage3.png', 'attention_stage4.png', 'feature_maps.png',
             'receptive_field.png']
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == sorted(names)
    for name in names:
        assert str(tmp_path / 'out' / name) in said
        pixels = mpimg.imread(tmp_path / 'out' / name)
        assert min(pixels.shape[:2]) > 300 and pixels.std() > 0.05
    assert abs(mpimg.imread(tmp_path / 'out/overview.jpg').shape[1] - 1200) < 10


def test_figures_state_when_weights_are_random(monkeypatch, tmp_path, scene, capsys):
    visualize(monkeypatch, SEG, scene, '--point', 0, 0, '--out', tmp_path, '--draws', 1,
              '--field-stage', 4, '--average', scene, '--head', 1, '--block', 1)
    assert 'random weights, nothing trained' in capsys.readouterr().out


def test_a_network_without_carriers_is_drawn_without_them(scene, tmp_path):
    model = FasterViT(dict(TINY, hierarchical=False), init_cfg=None).eval()
    insight = look(subject_of(model), scene, (30, 30), draws=1)
    assert insight.field_cut is None
    assert [p.name for p in draw_all(insight, tmp_path)] == [
        'attention_stage3.png', 'attention_stage4.png', 'feature_maps.png', 'receptive_field.png']


def test_a_swin_hat_is_drawn_from_stage_1_on(scene, tmp_path):
    """Its first blocks have no carriers; the overview is of stage 3's second, as FasterViT's."""
    model = SwinHAT(dict(embed_dims=16, depths=(1, 1, 2, 1), num_heads=(1, 1, 2, 4))).eval()
    insight = look(subject_of(model), scene, (30, 30), field_stage=1, draws=1)
    assert insight.field_cut is None  # nothing to cut before stage 3
    assert [p.name for p in draw_all(insight, tmp_path, block=1)] == [
        'overview.jpg', *(f'attention_stage{n}.png' for n in (1, 2, 3, 4)), 'feature_maps.png',
        'receptive_field.png']
    with pytest.raises(ValueError, match='block=0: has no carriers; of stage 3 1 have'):
        draw_all(insight, tmp_path, block=0)
    stage = main_stage(insight.stages)
    alone, carried = (draw_place(insight.prepared, insight.point, stage, n) for n in (0, 1))
    assert stage.grid.stage == 3 and carried.shape[1] > 2 * alone.shape[1]


def test_uniform_attention_is_labelled_and_shows_the_image(scene, tmp_path, monkeypatch):
    """As in an untrained network: here queries and position terms are zero."""
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *args, **kwargs: (
        drawn.append(figure), save(figure, *args, **kwargs)))
    model = FasterViT(TINY, init_cfg=None).eval()
    insight = look(subject_of(model), scene, (30, 30), draws=1)
    draw_overview(insight, tmp_path / 'as_it_is.png')
    for layer in model.modules():
        if isinstance(layer, RelativePositionBias):  # 8 towards all, as a carrier bias is
            torch.nn.init.zeros_(layer.weight2)
        if isinstance(layer, Attention):
            torch.nn.init.zeros_(layer.qkv.weight)
    insight = look(subject_of(model), scene, (30, 30), draws=1)
    draw_overview(insight, tmp_path / 'uniform.png')
    for figure, uniform in zip(drawn, (False, True), strict=True):
        bars = [axes for axes in figure.axes if 'probability' in axes.get_xlabel()
                or 'share' in axes.get_xlabel()]
        assert len(bars) == 3
        for bar in bars:
            assert bar.xaxis.get_offset_text().get_text() == ''
            assert ('(uniform)' in bar.get_xlabel()) == uniform
    # The colours over the image are not those of a peak.
    panel = drawn[1].axes[1].images[-1]
    assert 0.4 < float(panel.norm(panel.get_array()).max()) < 0.6


@pytest.mark.parametrize('arguments, message', [
    ((SEG, 'SCENE', '--point', 250, 10), r'point=\(250.0, 10.0\): the image is 250 wide and 160'),
    ((SEG, __file__, '--point', 5, 5), 'test_visualize.py\': not an image'),
    ((SEG, 'nothing.png', '--point', 5, 5), "image='nothing.png': no such file"),
    (('nothing.py', 'SCENE', '--point', 5, 5), "config='nothing.py': no such file"),
    ((SEG, 'nothing.pth', 'SCENE', '--point', 5, 5), 'nothing.pth'),
    ((SEG, 'SCENE', 'SCENE', '--point', 5, 5), 'scene.png'),  # no checkpoint
    ((SEG, 'SCENE', '--point', 5, 5, '--head', 4), 'head=4: stage 3 has heads 0 to 3'),
    ((SEG, 'SCENE', '--point', 5, 5, '--block', 2), 'block=2: stage 3 has blocks 0 to 1'),
    (('mmdet.py', 'SCENE', '--point', 5, 5), 'holds no FasterViT'),
])
def test_bad_input_is_an_error_of_one_line(monkeypatch, tmp_path, scene, arguments, message):
    if arguments[0] == 'mmdet.py':
        (tmp_path / 'mmdet.py').write_text("_base_ = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'")
    monkeypatch.chdir(tmp_path)
    arguments = [scene if a == 'SCENE' else a for a in arguments]
    with pytest.raises(SystemExit, match=message) as caught:
        visualize(monkeypatch, *arguments, '--out', tmp_path / 'out')
    assert caught.value.code.startswith('visualize: ')
    assert not list(Path(tmp_path / 'out').glob('*'))
