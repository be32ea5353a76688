"""Older files of this package, whose blocks had their own position terms."""
import re

import pytest
import torch

from fastervit_mm import FasterViT, SwinHAT
from fastervit_mm.weights import CheckpointError, load_backbone
from tests.backbone.common import ARCHS, maps, stirred
from tests.conftest import TINY

TERMS = {'positions': 'position', 'position_biases': 'attn.position_bias',
         'carrier_positions': 'carrier_position',
         'carrier_position_biases': 'carrier_attn.position_bias'}
PARAMETERS = {'weight1': 'mlp.fc1.weight', 'bias1': 'mlp.fc1.bias', 'weight2': 'mlp.fc2.weight'}
TERM = re.compile(rf'(stages\.\d)\.({"|".join(TERMS)})\.(\w+)$')
CARRIER_BIAS = re.compile(r'(stages\.\d)\.carrier_bias$')
NETWORKS = {**{name: lambda arch=arch: FasterViT(arch) for name, arch in ARCHS.items()},
            'SwinHAT': lambda: SwinHAT(dict(embed_dims=16, depths=(1, 4, 2, 2),
                                            num_heads=(1, 1, 2, 4)), ct_size=(1, 1, 2, 1))}


def former(model, carrier_bias=True):
    """The model's tensors as version 0.1 saved them."""
    tensors, step = {}, 2 if isinstance(model, SwinHAT) else 1  # every second block has carriers
    for key, tensor in model.state_dict().items():
        if found := TERM.match(key):
            stage, kind, parameter = found.groups()
            parts = {f'{TERMS[kind]}.{PARAMETERS[parameter]}': tensor}
        elif found := CARRIER_BIAS.match(key):
            parts = {'attn.position_bias.carrier_bias': tensor[..., 0, 0]} if carrier_bias else {}
            stage = found[1]
        else:
            key = key.replace('.carriers.', '.carrier_')
            key = key.replace('.relative_position_bias_table',
                              '.attn.position_bias.relative_position_bias_table')
            tensors[key] = tensor
            continue
        for name, blocks in parts.items():
            tensors.update((f'{stage}.blocks.{step * i + step - 1}.{name}', block.clone())
                           for i, block in enumerate(blocks))
    return tensors


def test_the_names_are_those_of_version_0_1():
    assert {name for name in former(FasterViT(TINY)) if name.startswith('stages.2.blocks.1.')} == {
        f'stages.2.blocks.1.{name}' for name in (
            *(f'{before}{layer}.{kind}' for before in ('', 'carrier_')
              for kind in ('weight', 'bias')
              for layer in ('norm1', 'norm2', 'attn.qkv', 'attn.proj', 'mlp.fc1', 'mlp.fc2')),
            *(f'{term}.mlp.{name}' for name in ('fc1.weight', 'fc1.bias', 'fc2.weight')
              for term in ('position', 'attn.position_bias', 'carrier_position',
                           'carrier_attn.position_bias')),
            'attn.position_bias.carrier_bias')}


@pytest.mark.parametrize('build', NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_an_older_file_fills_each_tensor(build, prefix):
    """Where the module loads, in a larger model too."""
    old = stirred(build())
    model = torch.nn.ModuleDict(dict(backbone=build(), head=torch.nn.Linear(1, 1)))
    if prefix:
        model.load_state_dict({**{f'{prefix}{k}': v for k, v in former(old).items()},
                               'head.weight': torch.ones(1, 1), 'head.bias': torch.ones(1)})
    else:
        model.backbone.load_state_dict(former(old))
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, old.state_dict()[name]), name


def test_more_than_ten_blocks_stay_in_order():
    settings = dict(TINY, depths=(1, 1, 12, 1))
    old, new = stirred(FasterViT(settings)), FasterViT(settings)
    new.load_state_dict(dict(sorted(former(old).items())))
    assert torch.equal(new.stages[2].positions.weight1, old.stages[2].positions.weight1)


def test_a_file_without_carrier_biases_gives_0(tmp_path, monkeypatch):
    """Loaded by the module, or from a file with a line in the log; on the meta device too."""
    old, lines = stirred(FasterViT(TINY)), []
    with torch.no_grad():
        old.stages[2].carrier_bias.zero_()
    monkeypatch.setattr('fastervit_mm.weights.loading.print_log',
                        lambda line, **kwargs: lines.append(line))
    image, path = torch.rand(2, 3, 130, 200), str(tmp_path / 'old.pth')
    for tensors in (former(old, carrier_bias=False), {
            k: v for k, v in old.state_dict().items() if 'carrier_bias' not in k}):
        model, loaded = FasterViT(TINY).eval(), FasterViT(TINY).eval()
        assert model.stages[2].carrier_bias.unique().tolist() == [8]
        model.load_state_dict(tensors)
        torch.save(tensors, path)
        report = load_backbone(loaded, path)
        assert report.fresh == report.unused == [] and not report.mismatched
        assert 'carrier bias' in lines[-1] and len(report.loaded) == len(model.state_dict()) - 1
        for network in (model, loaded):
            assert all(map(torch.equal, maps(network, image), maps(old, image)))
    with torch.device('meta'):
        empty = FasterViT(TINY)
    empty.load_state_dict(tensors, assign=True)
    assert all(map(torch.equal, maps(empty.eval(), image), maps(old, image)))
    torch.save(former(old), path)
    load_backbone(loaded, path)
    assert 'carrier bias' not in lines[-1]


def test_a_hole_is_not_taken_for_an_older_file(tmp_path):
    """Position terms missing in one block, or in all, are an error that names them."""
    old = former(stirred(FasterViT(TINY)))
    path = str(tmp_path / 'hole.pth')
    for hole, message in (
            ('stages.2.blocks.0.attn.position_bias', r'stages\.2\.position_biases\.weight1'),
            ('stages.2.blocks.0.carrier_attn.proj', r'stages\.2\.blocks\.0\.carriers\.attn\.proj')):
        tensors = {k: v for k, v in old.items() if not k.startswith(hole)}
        torch.save(tensors, path)
        with pytest.raises(RuntimeError, match=message):
            FasterViT(TINY).load_state_dict(tensors)
        with pytest.raises(CheckpointError, match=message):
            load_backbone(FasterViT(TINY), path)
    hole = {k: v for k, v in FasterViT(TINY).state_dict().items() if 'position_biases' not in k}
    with pytest.raises(RuntimeError, match=r'Missing.*stages\.2\.position_biases'):
        FasterViT(TINY).load_state_dict(hole)
