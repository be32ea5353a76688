"""Whole segmentors and classifiers in a file, beside mmseg and mmpretrain."""
import json

import numpy as np
import onnx
import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmseg.structures import SegDataSample
from PIL import Image

from fastervit_mm import export
from fastervit_mm.apis import Inferencer
from fastervit_mm.engine import launch
from fastervit_mm.export.metadata import metadata
from fastervit_mm.export.onnx_graph import largest_top_k
from fastervit_mm.export.parts import choose_part
from fastervit_mm.export.runtime import Network, labels_at, likeliest, prepare, read_image
from fastervit_mm.models import build_model, load_model
from fastervit_mm.pipelines import image_batch
from tests.bad_input.workshop import turned
from tests.conftest import TINY, stir
from tests.export.networks import SEGMENTOR, config, network
from tests.export.test_heads import BACKBONE
from tests.export.test_whole import SIZES, Eager, noise, writes

LAYER = {**dict.fromkeys(('self_attn_cfg.embed_dims', 'cross_attn_cfg.embed_dims',
                          'ffn_cfg.embed_dims', 'ffn_cfg.feedforward_channels'), 32)}
MASK2FORMER = {
    **BACKBONE, 'decode_head.in_channels': [8, 16, 32, 64], 'decode_head.feat_channels': 32,
    'decode_head.out_channels': 32, 'decode_head.num_classes': 5, 'decode_head.num_queries': 10,
    'decode_head.loss_cls.class_weight': [1.] * 5 + [0.1],
    'decode_head.positional_encoding.num_feats': 16,
    'decode_head.pixel_decoder.positional_encoding.num_feats': 16,
    'decode_head.pixel_decoder.norm_cfg.num_groups': 4,
    'decode_head.pixel_decoder.encoder.num_layers': 1,
    'decode_head.transformer_decoder.num_layers': 4,  # more than levels
    **{f'decode_head.{part}.layer_cfg.{key}': value for key, value in LAYER.items()
       for part in ('transformer_decoder', 'pixel_decoder.encoder')
       if 'encoder' not in part or not key.startswith('cross')}}


# Segmentors

def mask2former_config():
    cfg = get_config('mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py')
    cfg = Config(dict(default_scope='mmseg', model=cfg.model))
    cfg.merge_from_dict({f'model.{key}': value for key, value in MASK2FORMER.items()})
    return cfg


def mask2former():
    """Mask2Former of mmseg, which pads images to multiples of 32.

    Its random weights give every query masks with and without the pixels of an image.
    """
    torch.manual_seed(0)
    model = build_model(mask2former_config()).eval()
    stir(model)
    head = model.decode_head
    with torch.no_grad():
        maps = model.extract_feat(torch.randn(2, 3, 128, 128))
        head.pixel_decoder.mask_feature.bias -= head.pixel_decoder(maps)[0].mean((0, 2, 3))
        head.mask_embed[-1].weight *= 20
        head.cls_embed.weight *= 3
        head.cls_embed.bias -= head(maps, None)[0][-1].mean((0, 1))
    return model


@pytest.mark.parametrize('settings', [dict(), dict(labels=True), dict(input='normalized')])
def test_mask2former_gives_mmsegs_logits_or_labels(settings):
    model = mask2former()
    checks = export.check(model, Eager(model, **settings), SIZES)
    assert len(checks) == len(SIZES) and all(check.error < 1e-4 for check in checks)
    image = torch.rand(1, 3, 64, 96)
    found = model.encode_decode(image, [dict(img_shape=(64, 96))])
    assert len(found.argmax(1).unique()) > 2 and found.std() > 0.01


@writes
@pytest.mark.long
def test_a_file_of_mask2former_gives_mmsegs_labels_of_padded_images(tmp_path):
    model = mask2former()
    path = str(tmp_path / 'segmentor.onnx')
    export.export(model, path)
    assert all(check.error < 1e-3 for check in export.check(model, path, SIZES))
    image = torch.randint(256, (3, 50, 70), dtype=torch.uint8)
    data = dict(inputs=[image], data_samples=[SegDataSample(metainfo=dict(
        ori_shape=(100, 140), img_shape=(50, 70)))])
    expected = model.test_step(data)[0].pred_sem_seg.data[0]
    logits, = export.ExportedFile(path)(image.flip(0)[None])
    found = labels_at(logits[0].numpy(), 100, 140)
    assert (found == expected.numpy()).mean() > 0.999


@pytest.mark.parametrize('dataset, offset', [
    (dict(type='ADE20KDataset'), 1), (dict(type='ADE20KDataset', reduce_zero_label=False), 0),
    (dict(type='CityscapesDataset'), 0), (dict(type='BaseSegDataset', reduce_zero_label=True), 1)])
def test_a_file_numbers_classes_as_the_label_maps_of_its_dataset(dataset, offset, tmp_path):
    cfg = config(SEGMENTOR, tmp_path)
    model = network(cfg)
    cfg.test_dataloader.dataset = dict(dataset, pipeline=[])
    part = Eager(model)._module
    assert metadata(model, part, 'whole', True, cfg)['label_offset'] == str(offset)


@pytest.mark.parametrize('head, says', [
    (dict(type='EncHead', num_codes=4, in_index=(0, 1, 2, 3)), 'EncHead'),
    (dict(type='DAHead', pam_channels=4, in_index=3, in_channels=64), 'DAHead')])
def test_a_decode_head_that_cannot_be_exported_is_named_in_a_line(head, says):
    cfg = mask2former_config()
    cfg.model.decode_head = dict(dict(
        in_channels=[8, 16, 32, 64], channels=16, num_classes=5), **head)
    model = build_model(cfg).eval()
    with pytest.raises(export.ExportError, match=rf'^{says} cannot be exported; .*backbone'):
        choose_part(model, 'whole')
    assert choose_part(model) == 'backbone'


# Classifiers

@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """Config, checkpoint and file of a small classifier with this package's pipeline."""
    folder = tmp_path_factory.mktemp('classifier')
    paths = [str(folder / name) for name in ('classifier.py', 'classifier.pth', 'classifier.onnx')]
    (folder / 'classifier.py').write_text(f"""
_base_ = 'fastervit_mm::mmpretrain/fastervit-2_in1k.py'
model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY!r})),
             head=dict(in_channels=128, num_classes=5))
""")
    cfg = launch.load_config(paths[0])
    model = network(cfg)
    with torch.no_grad():
        model.head.fc.weight *= 20
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(
        classes=tuple('abcde')))), paths[1])
    export.export(load_model(cfg, paths[1]), paths[2], cfg=cfg)
    return paths


@writes
@pytest.mark.parametrize('name', ['wide.png', 'high.jpg', 'turned.jpg'])
def test_the_runtime_gives_the_inferencers_scores(name, classifier, tmp_path):
    """Of photographs that the pipeline resizes, crops and does not turn."""
    height, width = (90, 150) if name == 'wide.png' else (301, 160)
    pixels = Image.fromarray(noise(9, 14).transpose(1, 2, 0)).resize((width, height))
    path = str(tmp_path / name)
    pixels.save(path, exif=turned(6) if 'turned' in name else b'')
    network = Network(classifier[2])
    image = read_image(path, not network.facts.get('ignore_orientation'))
    found = likeliest(network(image), network)
    expected, = Inferencer(classifier[0], classifier[1], 'cpu')(path).predictions
    assert len(found) == 5 and found[0]['score'] > 0.25
    for one, other in zip(found, expected.top):
        assert one['name'] == other['name'] and abs(one['score'] - other['score']) < 1e-4


@writes
def test_settings_of_resizing_that_a_pipeline_leaves_out_are_in_the_metadata(classifier):
    cfg = launch.load_config(classifier[0])
    model = load_model(cfg, classifier[1])
    whole = json.loads(export.ExportedFile(classifier[2]).facts['resize'])
    assert whole == dict(scale=224, edge='short', backend='pillow', interpolation='bicubic',
                         crop_size=224)
    cfg.test_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'), dict(type='ResizeEdge', scale=72),
        dict(type='CenterCrop', crop_size=(64, 50)), dict(type='PackInputs')]
    facts = metadata(model, Eager(model)._module, 'whole', True, cfg)
    image = np.ascontiguousarray(noise(90, 150).transpose(1, 2, 0))
    expected = image_batch(cfg, image)['inputs'][0]
    assert np.array_equal(prepare(image, json.loads(facts['resize'])).transpose(2, 0, 1), expected)
    assert 'ignore_orientation' not in facts


def test_the_most_candidates_of_a_file_are_found(tmp_path):
    """TensorRT takes 3840."""
    graph = onnx.parser.parse_model("""
<ir_version: 9, opset_import: ["" : 18]>
best (float[1, N] scores) => (float[1, 5000] best) <int64[1] k = {5000}, int64[1] few = {7}> {
  best, place = TopK(scores, k)
  worst, others = TopK<largest = 0>(best, few)
}""")
    onnx.save(graph, str(tmp_path / 'best.onnx'))
    assert largest_top_k(str(tmp_path / 'best.onnx')) == 5000
