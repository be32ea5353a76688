"""The authors' 4-21k files, which differ only in windows, are told apart."""
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from fastervit_mm import FasterViT
from fastervit_mm.backbone import VARIANTS
from fastervit_mm.engine import PublishedNamesHook
from fastervit_mm.timm_models import FasterViTClassifier
from fastervit_mm.weights import CheckpointError, load_backbone, translate
from tests.conftest import TINY
from tests.imagenet.conftest import save_as_published, their_model

FILES = {'4-21k-224': (14, 7), '4-21k-384': (24, 12), '4-21k-512': (32, 16), '4-21k-768': (48, 24)}
SMALL = dict(TINY, hierarchical=False, layer_scale=1e-5)  # its windows are 7 and 7 cells wide


@pytest.fixture(scope='module')
def four():
    """Tensors of the authors' four networks, narrower and with fewer blocks."""
    return {arch: their_model(arch, dim=32, in_dim=8, depths=[1, 1, 1, 1]).state_dict()
            for arch in FILES}


@pytest.fixture(scope='module')
def small_file(tmp_path_factory):
    """A training checkpoint of the authors' 384 network, narrower."""
    theirs = their_model('4-21k-384', dim=16, in_dim=8, depths=list(TINY['depths']),
                         num_heads=list(TINY['num_heads']))
    path = tmp_path_factory.mktemp('w24') / 'fastervit_4_21k_384_w24.pth.tar'
    return save_as_published(theirs, path), theirs.state_dict()


def changed_nothing(model, load, match):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=match) as error:
        load()
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    return str(error.value)


@pytest.mark.parametrize('arch', FILES)
def test_each_file_loads_only_into_its_own_network(arch, four):
    with torch.device('meta'):
        network, chosen = FasterViT(arch), FasterViT(arch, other_windows=True)
    for name, tensors in four.items():
        # All but the caches is alike: this is what went unseen.
        assert ({k: v.shape for k, v in translate(tensors).items()}
                == {k: v.shape for k, v in translate(four[arch]).items()})
        assert chosen.wrong_windows(tensors) is None
        said = network.wrong_windows(tensors)
        if name == arch:
            assert said is None
            continue
        theirs, ours = (f'{a} and {b}' for a, b in (FILES[name], FILES[arch]))
        assert said.startswith(f'trained with windows of {theirs} cells a side in stages 3 and 4, '
                               f"but arch='{arch}' has {ours}")
        assert f'Set window_size={FILES[name]}, as the file has, or other_windows=True' in said


def test_a_file_of_other_windows_is_refused_unless_asked_for(small_file):
    path, tensors = small_file
    model = FasterViT(SMALL)
    said = changed_nothing(model, lambda: load_backbone(model, path),
                           'windows of 24 and 12 cells a side in stages 3 and 4, but')
    assert 'Set window_size=(24, 12), as the file has, or other_windows=True to use' in said
    model = FasterViT(SMALL, in_channels=4)  # nor where the first convolution has another shape
    changed_nothing(model, lambda: load_backbone(model, path), 'windows of 24 and 12')
    model = FasterViT(SMALL, window_size=(7, 7))  # to give windows is not enough
    changed_nothing(model, lambda: load_backbone(model, path), 'windows of 24 and 12')
    for given in (dict(other_windows=True), dict(window_size=(24, 12)),
                  dict(window_size=(9, 3), other_windows=True)):
        model = FasterViT(SMALL, out_norm=None, **given)
        assert load_backbone(model, path).fresh == []
        assert torch.equal(model.stages[2].positions.weight1[0],
                           tensors['levels.2.blocks.0.pos_embed.cpb_mlp.0.weight'])


def test_in_a_detectors_file_and_for_fewer_stages_too(small_file, tmp_path):
    path = str(tmp_path / 'detector.pth')
    torch.save({f'backbone.{k}': v for k, v in small_file[1].items()}, path)
    for prefix in (None, 'backbone'):
        with pytest.raises(CheckpointError, match='windows of 24 and 12 cells'):
            load_backbone(FasterViT(SMALL, out_indices=(2, )), path, prefix)
    # Without a stage that has windows there is nothing to tell.
    load_backbone(FasterViT(SMALL, out_indices=(0, 1)), path)


def test_another_network_is_another_error(small_file):
    with pytest.raises(CheckpointError, match='Set arch to that') as error:
        load_backbone(FasterViT(dict(SMALL, embed_dim=32)), small_file[0])
    assert 'another shape' in str(error.value) and 'trained with windows' not in str(error.value)


def test_a_state_dict_is_checked_where_the_module_loads_it(small_file):
    """Through torch itself, alone and in a larger model."""
    tensors = small_file[1]
    with pytest.raises(RuntimeError, match='windows of 24 and 12 cells'):
        FasterViT(SMALL).load_state_dict(tensors)
    holder = torch.nn.ModuleDict(dict(backbone=FasterViT(SMALL)))
    with pytest.raises(RuntimeError, match='windows of 24 and 12 cells'):
        holder.load_state_dict({f'backbone.{k}': v for k, v in tensors.items()})
    FasterViT(SMALL, window_size=(24, 12)).load_state_dict(tensors)


def test_timms_classifier_refuses_it_and_takes_it_with_windows_given(small_file):
    model = FasterViTClassifier(SMALL)
    changed_nothing(model, lambda: model.load_pretrained(small_file[0]),
                    'windows of 24 and 12 cells')
    FasterViTClassifier(SMALL, window_size=(24, 12)).load_pretrained(small_file[0])


def test_whole_models_of_the_runner_refuse_it(small_file):
    """By the hook of training and testing, before anything is loaded."""
    def load(model):
        content = dict(state_dict=dict(small_file[1]))
        PublishedNamesHook().after_load_checkpoint(
            SimpleNamespace(model=model, _load_from='w24.pth'), content)
        return content['state_dict']

    with pytest.raises(CheckpointError, match="checkpoint='w24.pth': trained with windows of 24"):
        load(torch.nn.ModuleDict(dict(backbone=FasterViT(SMALL))))
    given = load(torch.nn.ModuleDict(dict(backbone=FasterViT(SMALL, other_windows=True))))
    assert 'backbone.stem.conv1.weight' in given and 'head.fc.weight' in given


def test_files_without_the_authors_caches_load_with_any_windows(tmp_path):
    """Our files do not record windows: they may be fine-tuned at another size."""
    path = str(tmp_path / 'ours.pth')
    torch.save(FasterViT(SMALL, window_size=(24, 12)).state_dict(), path)
    assert load_backbone(FasterViT(SMALL), path).fresh == []


def test_a_table_of_an_odd_shape_is_ignored(small_file):
    name = 'levels.2.blocks.0.attn.pos_emb_funct.relative_coords_table'
    for shape in ((), (3, )):
        assert FasterViT(SMALL).wrong_windows({name: torch.zeros(shape)}) is None
    assert FasterViT(SMALL).wrong_windows({name: torch.zeros(1, 5, 5, 2)}).startswith(
        'trained with windows of 3 and 7 cells')


def test_the_four_variants_differ_in_windows_alone():
    """If they differed in another field, a file could be named wrongly."""
    one = VARIANTS['4-21k-224']
    assert {name: replace(one, window_size=windows) for name, windows in FILES.items()} == {
        name: VARIANTS[name] for name in FILES}
