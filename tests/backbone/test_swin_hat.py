"""SwinHAT: Swin's blocks and weights where the two are the same, carriers where they are not."""
import copy

import pytest
import torch
from mmdet.models.backbones.swin import SwinTransformer
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from fastervit_mm import FasterViT, SwinHAT, complexity
from fastervit_mm.backbone.positions import grid
from fastervit_mm.export.swaps import prepared
from fastervit_mm.models import check_complete
from fastervit_mm.weights import CheckpointError, load_backbone
from tests.backbone.common import error, gradient_error, gradients, maps, stirred
from tests.conftest import REPO, stir
from tests.conftest import TINY as FASTERVIT

CODES = grid(7, 7, 7, torch.device('cpu')).codes
TINY = dict(embed_dims=16, depths=(2, 2, 2, 2), num_heads=(1, 1, 2, 4))
SIZES = [(32, 32), (224, 448), (97, 150), (131, 333)]


def build(**settings):
    return stirred(SwinHAT(**{'arch': TINY, 'drop_path_rate': 0., **settings}))


def timms(**settings):
    """A timm Swin: it has the names of Microsoft's repository."""
    import timm
    return timm.create_model('swin_tiny_patch4_window7_224', num_classes=5, **settings)


@pytest.fixture(scope='module')
def mmdets():
    """mmdet's Swin without shifts."""
    torch.manual_seed(0)
    swin = SwinTransformer(embed_dims=16, depths=TINY['depths'], num_heads=TINY['num_heads'],
                           drop_path_rate=0.)
    swin.eval()  # returns nothing
    stir(swin)
    for module in swin.modules():
        if hasattr(module, 'shift_size'):
            module.shift_size = 0
            nn.init.normal_(module.w_msa.relative_position_bias_table)
    return swin


def test_without_carriers_it_equals_mmdet_s_swin_without_shifts(mmdets, tmp_path):
    torch.save(mmdets.state_dict(), tmp_path / 'swin.pth')
    model = build(ct_size=0)
    assert load_backbone(model, str(tmp_path / 'swin.pth')).fresh == []
    for size in ((224, 448), (97, 150), (512, 333)):  # the latter two are padded
        image = torch.randn(2, 3, *size)
        assert error(maps(model, image), maps(mmdets, image)) < 1e-5


def test_with_carriers_its_first_blocks_equal_mmdet_s(mmdets, tmp_path):
    """In every stage."""
    torch.save(mmdets.state_dict(), tmp_path / 'swin.pth')
    model = build()
    load_backbone(model, str(tmp_path / 'swin.pth'))
    for i, (stage, theirs) in enumerate(zip(model.stages, mmdets.stages, strict=True)):
        x = torch.randn(2, 15 * 20, 16 * 2**i)
        with torch.no_grad():
            expected = theirs.blocks[0](x, (15, 20))
            got, _ = stage.blocks[0](x.view(2, 15, 20, -1), CODES)
        assert error([got.view(x.shape)], [expected]) < 1e-5


def test_attention_sees_zeros_where_a_map_is_padded():
    """Nothing else in a block sees padding, and carriers are not zeros."""
    block, values = build(ct_size=2).stages[0].blocks[1], []
    block.attn.register_forward_pre_hook(lambda _, given: values.append(given[0]))
    x, carriers = torch.randn(2, 9, 13, 16), torch.randn(2, 2, 2, 4, 16)
    with torch.no_grad():
        block(x, CODES, carriers, torch.zeros(1, 16, 16), torch.zeros(1, 1, 1, 1))
    value, = values
    assert value.shape == (2 * 4, 4 + 49, 16) and value[:, :4].abs().sum(-1).gt(0).all()
    cells = value[:, 4:].view(2, 2, 2, 7, 7, 16).transpose(2, 3).reshape(2, 14, 14, 16)
    torch.testing.assert_close(cells[:, :9, :13], block.norm1(x))
    assert not cells[:, 9:].any() and not cells[:, :, 13:].any()


@pytest.mark.parametrize('ct_size', [0, 1])
def test_other_windows_see_a_row_only_through_carriers(ct_size):
    stage = build(ct_size=ct_size).stages[0]
    x = torch.randn(1, 16, 7, 70)
    changed = x.clone()
    changed[..., 63:] += 5
    same = torch.equal(maps(stage, x)[0][..., :7], maps(stage, changed)[0][..., :7])
    assert same == (ct_size == 0)


def test_microsoft_s_file_fills_all_shared_tensors(tmp_path, monkeypatch):
    """In Microsoft's layout, as timm's; maps equal those of timm's own network."""
    lines = []
    monkeypatch.setattr('fastervit_mm.weights.loading.print_log',
                        lambda line, **kwargs: lines.append(line))
    theirs = timms(embed_dim=16, depths=TINY['depths'], num_heads=TINY['num_heads']).eval()
    tensors = theirs.state_dict()
    # What timm calls otherwise: each merging belongs to the stage before it.
    for name in [name for name in tensors if '.downsample.' in name]:
        stage = int(name.split('.')[1])
        tensors[name.replace(f'layers.{stage}', f'layers.{stage - 1}')] = tensors.pop(name)
    tensors['layers.0.blocks.1.attn_mask'] = torch.zeros(64, 49, 49)
    tensors['layers.0.blocks.0.attn.relative_position_index'] = torch.zeros(49, 49)
    path = str(tmp_path / 'swin.pth')
    torch.save(dict(model=tensors), path)

    pretrained = dict(type='Pretrained', checkpoint=path)
    model = SwinHAT(TINY, convert_weights=True, init_cfg=pretrained)
    model.init_weights()
    fresh = [name for name in model.state_dict() if '.carrier' in name]
    assert str(len(model.state_dict()) - len(fresh) - 8) in lines[-1]
    assert str(len(fresh)) in lines[-1] and 'carrier' in lines[-1]

    model = SwinHAT(TINY, ct_size=0, convert_weights=True)
    load_backbone(model, path)
    for layer in theirs.modules():
        if hasattr(layer, 'shift_size'):
            layer.shift_size, layer.attn_mask = (0, 0), None
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = theirs.forward_intermediates(image, intermediates_only=True)
        model.out_norms = nn.ModuleDict({str(i): nn.Identity() for i in range(4)})
        assert error(maps(model.eval(), image), expected) < 1e-4

    with pytest.raises(CheckpointError, match='Set convert_weights=True in the backbone'):
        load_backbone(SwinHAT(TINY), path)
    with pytest.raises(CheckpointError, match=r"have another shape .*looks like arch={.*'num_heads'"
                       r": \(1, 1, 2, 4\)}, window_size=7\. Set arch and window_size to that"):
        load_backbone(SwinHAT(dict(TINY, num_heads=(2, 2, 2, 4)), convert_weights=True), path)
    del tensors['layers.1.blocks.1.mlp.fc1.weight']
    torch.save(dict(model=tensors), path)
    with pytest.raises(CheckpointError, match=r'would stay random \(stages.1.blocks.1.mlp.fc1'):
        load_backbone(SwinHAT(TINY, convert_weights=True), path)


def test_its_own_file_loads_whole_or_not_at_all(tmp_path):
    source, model, path = build(), SwinHAT(TINY), str(tmp_path / 'hat.pth')
    torch.save({f'backbone.{k}': v for k, v in source.state_dict().items()}, path)
    assert load_backbone(model, path).fresh == []
    load_backbone(SwinHAT(TINY, convert_weights=True), path)  # such as one it trained
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in source.state_dict().items())
    check_complete(model, source.state_dict(), path)
    hole = {k: v for k, v in source.state_dict().items() if k != 'stages.0.carrier_init.conv.bias'}
    torch.save(hole, path)
    with pytest.raises(CheckpointError, match=r'1 tensors .* random \(stages.0.carrier_init'):
        load_backbone(SwinHAT(TINY), path)
    torch.save(FasterViT(FASTERVIT).state_dict(), path)
    with pytest.raises(CheckpointError, match='looks like a FasterViT, .*takes files of a Swin'):
        load_backbone(SwinHAT(TINY), path)
    torch.save({'some.weight': torch.rand(2)}, path)
    with pytest.raises(CheckpointError, match='not a SwinHAT'):
        load_backbone(SwinHAT(TINY), path)


@pytest.mark.parametrize('ct_size', [0, 1, (1, 2, 3, 1)])
def test_any_size_gives_ceil_strided_maps_prepared_for_export_too(ct_size):
    model = build(ct_size=ct_size)
    expected = {size: maps(model, torch.ones(1, 3, *size).cumsum(2) / 100) for size in SIZES}
    exported = prepared(copy.deepcopy(model), 'backbone')
    for size in SIZES:
        assert [tuple(m.shape[1:]) for m in expected[size]] == [
            (16 * 2**i, -(-size[0] // (4 * 2**i)), -(-size[1] // (4 * 2**i))) for i in range(4)]
        assert error(maps(exported, torch.ones(1, 3, *size).cumsum(2) / 100), expected[size]) < 1e-4


def test_every_parameter_is_trained_recomputed_or_not():
    """So DDP finds no unused parameter."""
    model = build(frozen_stages=1).train()
    image = torch.randn(2, 3, 97, 150)
    plain = gradients(model, image)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert plain.keys() == trained
    frozen = {'.'.join(n.split('.')[:2]) for n, p in model.named_parameters() if n not in trained}
    assert frozen == {'stem.conv', 'stem.norm', 'stages.0', 'downsamples.0'}
    for stage in model.stages:
        stage.with_cp = True
    assert gradient_error(gradients(model, image), plain) < 1e-5


@pytest.mark.parametrize('given, message', [
    (dict(arch='huge'), r"arch='huge': give one of \['tiny', 'small', 'base'\]"),
    (dict(arch=dict(embed_dims=8)), 'give one of'),
    (dict(arch=dict(TINY, depths=(2, 2))), r'depths=\(2, 2\): give 4 whole numbers'),
    (dict(ct_size=(1, 2)), r'ct_size=\(1, 2\): give 4 whole numbers'),
    (dict(ct_size=9), 'ct_size=9: at most window_size=7'),
    (dict(drop_path_rate=1), 'drop_path_rate=1: give a rate'),
    (dict(drop_path_rate='0.1'), "drop_path_rate='0.1': give a rate"),
    (dict(out_indices=(4,)), r'out_indices=\(4,\): SwinHAT has stages 0 to 3'),
    (dict(frozen_stages=9), 'frozen_stages=9'),
    (dict(in_channels=0), 'in_channels=0'),
])
def test_an_argument_out_of_range_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        SwinHAT(**{'arch': TINY, **given})


def test_an_image_that_is_too_small_is_an_error():
    with pytest.raises(ValueError, match='input of shape .*31, 64.*at least 32'):
        build()(torch.rand(1, 3, 31, 64))


def test_the_configs_are_this_repository_s_recipes_with_another_backbone():
    import mmseg.models  # noqa: F401  (not on the meta device)
    for path, converts in (('mmdet/cascade_swin_hat', True), ('mmseg/upernet_swin_hat', False)):
        cfg, other = (Config.fromfile(str(REPO / f'configs/{name}.py'))
                      for name in (path, path.replace('swin_hat', 'fvit')))
        for part in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'train_dataloader'):
            assert cfg[part] == other[part]
        init_default_scope(cfg.default_scope)
        assert cfg.model.backbone.get('convert_weights', False) == converts
        with torch.device('meta'):
            model = MODELS.build({**cfg.model, 'backbone': dict(cfg.model.backbone, init_cfg=None)})
        reader = cfg.model.get('neck') or cfg.model.decode_head
        assert tuple(reader.in_channels) == model.backbone.out_channels


def test_parameters_and_products_are_swin_t_s_and_the_carriers_own():
    counted = complexity._count(complexity._Backbone(SwinHAT('tiny', ct_size=0)), (224, 224),
                                None, None)
    total = complexity._sum('total', counted)
    assert total.parameters / 1e6 == pytest.approx(27.5, abs=0.1)  # Swin-T without its classifier
    assert total.multiply_adds / 1e9 == pytest.approx(4.5, abs=0.15)
