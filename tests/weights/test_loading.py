"""Published files load completely, unchanged and safely; others are a helpful error."""
import argparse
from collections import OrderedDict

import pytest
import torch
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.runner import save_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint
from safetensors.torch import load_file

from fastervit_mm import FasterViT
from fastervit_mm.weights import PUBLISHED, CheckpointError, load_backbone, resolve
from fastervit_mm.weights.reading import strict_loaders
from tests.conftest import TINY, stir
from tests.running import run_tool


@pytest.fixture(scope='module')
def authors_file(tmp_path_factory, authors):
    """A training checkpoint as the authors publish them, of their own variant 0."""
    model = authors('0')
    optimizer = torch.optim.AdamW(model.parameters())
    model.train()(torch.rand(2, 3, 224, 224)).sum().backward()
    optimizer.step()
    model.eval()
    path = tmp_path_factory.mktemp('published') / 'fastervit_0_224_1k.pth.tar'
    torch.save(dict(
        epoch=299, arch='faster_vit_0_224', metric=82.1, version=2,
        state_dict=OrderedDict((f'module.{k}', v) for k, v in model.state_dict().items()),
        optimizer=optimizer.state_dict(),
        args=argparse.Namespace(lr=5e-3, model='faster_vit_0_224', mean=(0.485, ))), path)
    return path, model


def build(**kwargs):
    model = FasterViT(**{'arch': '0', **kwargs})
    model.init_weights()
    return model


@pytest.fixture
def log(tmp_path):
    """The lines that loading wrote to mmengine's log."""
    file = tmp_path / 'log.txt'
    MMLogger.get_instance(f'test_{tmp_path.name}', log_file=str(file))
    return file.read_text


def test_the_authors_training_checkpoint_loads_through_init_cfg(authors_file, log):
    path, theirs = authors_file
    model = build(out_norm=None, init_cfg=dict(type='Pretrained', checkpoint=str(path))).eval()
    image = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        last_map = model(image)[-1]
        logits = theirs.head(torch.flatten(theirs.avgpool(theirs.norm(last_map)), 1))
        torch.testing.assert_close(logits, theirs(image), rtol=1e-4, atol=1e-5)
    assert '315 of 316 tensors loaded from' in log()
    assert 'module.); carrier biases absent, set to 0\n' in log()


def test_one_line_names_the_tensors_that_keep_their_initial_values(authors_file, log):
    build(init_cfg=dict(type='Pretrained', checkpoint=str(authors_file[0])))
    line, = [line for line in log().splitlines() if 'tensors loaded from' in line]
    assert '315 of 336 tensors' in line
    assert '; 20 of output norms keep their initial values' in line


@pytest.mark.parametrize('channels', [1, 2, 5])
def test_other_channels_get_other_weights_than_timms_or_not_all(channels, authors_file, log):
    path, theirs = authors_file
    model = build(in_channels=channels, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    weight = theirs.state_dict()['patch_embed.conv_down.0.weight']
    expected = weight.sum(1, keepdim=True) if channels == 1 else (
        weight[:, [i % 3 for i in range(channels)]] * 3 / channels)
    torch.testing.assert_close(model.stem.conv1.weight, expected)
    line, = [line for line in log().splitlines() if 'tensors loaded from' in line]
    assert '315 of 336 tensors' in line
    assert f'stem.conv1.weight adapted from 3 channels to {channels}' in line


def test_a_grey_image_in_one_channel_has_other_maps_than_in_three(tmp_path):
    source = FasterViT(TINY)
    stir(source)
    torch.save(source.state_dict(), tmp_path / 'three.pth')
    grey, image = FasterViT(TINY, in_channels=1), torch.rand(1, 1, 64, 96)
    load_backbone(grey, str(tmp_path / 'three.pth'))
    with torch.no_grad():
        for one, three in zip(grey.eval()(image), source.eval()(image.expand(-1, 3, -1, -1))):
            torch.testing.assert_close(one, three, rtol=1e-4, atol=1e-5)


def test_weights_for_other_channels_are_taken_or_misnamed(tmp_path):
    torch.save(FasterViT(TINY, in_channels=4).state_dict(), tmp_path / 'four.pth')
    with pytest.raises(CheckpointError, match='for images of 4 channels. Set in_channels=4; '):
        load_backbone(FasterViT(TINY), str(tmp_path / 'four.pth'))


def test_fewer_stages_load_from_the_whole_file(authors_file):
    model = build(out_indices=(0, 1), init_cfg=dict(type='Pretrained',
                                                    checkpoint=str(authors_file[0])))
    theirs = authors_file[1].state_dict()
    assert torch.equal(model.stages[1].blocks[0].conv1.weight,
                       theirs['levels.1.blocks.0.conv1.weight'])


def test_pretrained_weights_come_after_other_initialisers(authors_file):
    model = build(init_cfg=[dict(type='Pretrained', checkpoint=str(authors_file[0])),
                            dict(type='Constant', layer='Linear', val=7.0)])
    theirs = authors_file[1].state_dict()
    assert torch.equal(model.stages[3].blocks[0].attn.qkv.weight,
                       theirs['levels.3.blocks.0.attn.qkv.weight'])


def test_without_pretrained_weights_linear_layers_are_truncated_normal():
    model = build()
    weight = model.stages[3].blocks[0].mlp.fc1.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not model.stages[3].blocks[0].mlp.fc1.bias.any()


@pytest.mark.parametrize('prefix', [None, 'backbone.', 'backbone'])
def test_a_backbone_is_read_out_of_a_detectors_checkpoint(tmp_path, prefix):
    source = FasterViT(TINY)
    stir(source)
    detector = torch.nn.ModuleDict(dict(backbone=source, neck=torch.nn.Conv2d(3, 3, 1)))
    save_checkpoint(dict(meta=dict(epoch=1), state_dict=detector.state_dict()),
                    str(tmp_path / 'epoch_1.pth'))
    model = FasterViT(TINY)
    report = load_backbone(model, str(tmp_path / 'epoch_1.pth'), prefix=prefix)
    assert report.fresh == []
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_the_wrong_variant_is_named_and_nothing_is_changed(authors_file):
    model = FasterViT('1')
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="looks like arch='0'. Set arch to that") as error:
        load_backbone(model, str(authors_file[0]))
    assert "arch='1'" in str(error.value) and 'another shape' in str(error.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_an_incomplete_file_is_refused_unless_asked_for(tmp_path, log):
    source = FasterViT(TINY)
    stir(source)
    tensors = {k: v for k, v in source.state_dict().items() if not k.startswith('stages.3.')}
    path = str(tmp_path / 'holes.pth')
    torch.save(tensors, path)
    with pytest.raises(CheckpointError, match='would stay random .stages.3.blocks.0'):
        build(arch=TINY, init_cfg=dict(type='Pretrained', checkpoint=path))
    model = build(arch=TINY, init_cfg=dict(type='Pretrained', checkpoint=path,
                                           allow_partial=True))
    assert torch.equal(model.stem.conv1.weight, source.stem.conv1.weight)
    assert 'others (stages.3.blocks.0' in log()


def test_a_deeper_file_is_refused(tmp_path):
    path = str(tmp_path / 'deep.pth')
    torch.save(FasterViT(dict(TINY, depths=(1, 2, 4, 1))).state_dict(), path)
    with pytest.raises(CheckpointError, match='tensors of the file have no place'):
        load_backbone(FasterViT(TINY), path)


def test_other_output_norms_do_not_matter(tmp_path):
    path = str(tmp_path / 'ln.pth')
    torch.save(FasterViT(TINY, out_norm='LN').state_dict(), path)
    assert load_backbone(FasterViT(TINY, out_norm=None), path).fresh == []


def test_a_foreign_file_is_refused(tmp_path):
    path = str(tmp_path / 'resnet.pth')
    torch.save(dict(state_dict={'layer1.0.conv1.weight': torch.rand(64, 64, 1, 1)}), path)
    with pytest.raises(CheckpointError, match='not a FasterViT.*layer1.0.conv1.weight'):
        load_backbone(FasterViT(TINY), path)
    torch.save([1, 2, 3], path)
    with pytest.raises(CheckpointError, match='contains no named tensors, but a list'):
        load_backbone(FasterViT(TINY), path)


class _Reach:
    """Requests an attribute, as mmengine's histories do, but of another object."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


def test_histories_are_read_and_getattr_reaches_nothing_else(tmp_path):
    """mmengine pickles a HistoryBuffer with its methods, each as a call of getattr."""
    path = str(tmp_path / 'epoch_1.pth')
    save_checkpoint(dict(history=HistoryBuffer([1.0, 2.0], [1, 1])), path)
    assert CheckpointLoader.load_checkpoint(path)['history'].mean() == 1.5
    torch.save(dict(state_dict={}, reach=_Reach()), path)
    with strict_loaders(), pytest.raises(CheckpointError, match='no code in it was run'):
        CheckpointLoader.load_checkpoint(path)


def test_old_format_files_load(tmp_path):
    path = str(tmp_path / 'legacy.pth')
    torch.save(FasterViT(TINY).state_dict(), path, _use_new_zipfile_serialization=False)
    assert load_backbone(FasterViT(TINY), path).fresh == []


def test_an_absent_file_is_named():
    with pytest.raises(FileNotFoundError, match='checkpoint=.*nowhere.pth'):
        build(init_cfg=dict(type='Pretrained', checkpoint='nowhere.pth'))


def test_published_names():
    assert set(PUBLISHED) == {*(f'{n}-224-1k' for n in range(7)), '4-21k-224', '4-21k-384',
                              '4-21k-512', '4-21k-768'}
    root = 'https://huggingface.co/ahatamiz/FasterViT/resolve/main/'
    assert resolve('fastervit://2-224-1k') == f'{root}fastervit_2_224_1k.pth.tar'
    assert resolve('fastervit://4-21k-384') == f'{root}fastervit_4_21k_384_w24.pth.tar'
    with pytest.raises(ValueError, match="fastervit://2-224-1k"):
        resolve('fastervit://2-384')


def test_a_published_name_is_read_from_the_download_folder(authors_file, tmp_path, monkeypatch):
    """An earlier or manual download is used, without the network."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    folder = tmp_path / 'hub' / 'checkpoints'
    folder.mkdir(parents=True)
    (folder / authors_file[0].name).symlink_to(authors_file[0])
    model = build(init_cfg=dict(type='Pretrained', checkpoint='fastervit://0-224-1k'))
    expected = authors_file[1].state_dict()['patch_embed.conv_down.0.weight']
    assert torch.equal(model.stem.conv1.weight, expected)
    through_mmengine = FasterViT('0')
    load_checkpoint(through_mmengine, 'fastervit://0-224-1k')
    assert torch.equal(through_mmengine.stem.conv1.weight, expected)


def test_a_url_is_downloaded_once_and_read_safely(authors_file, tmp_path, monkeypatch):
    """From a real server on this machine."""
    import http.server
    import threading
    from functools import partial
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=authors_file[0].parent)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{server.server_port}/{authors_file[0].name}'
    try:
        assert load_backbone(FasterViT('0', out_norm=None), url).fresh == []
        with pytest.raises(CheckpointError, match='could not be downloaded.*put it at'):
            load_backbone(FasterViT('0'), url.replace('fastervit_0', 'fastervit_none'))
    finally:
        server.shutdown()
    assert load_backbone(FasterViT('0', out_norm=None), url).fresh == []  # no server any more


def test_convert_weights_keeps_the_backbone_alone(authors_file, tmp_path):
    out = tmp_path / 'small.pth'
    done = run_tool('convert_weights.py', authors_file[0], out, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert out.stat().st_size < 0.35 * authors_file[0].stat().st_size
    content = torch.load(out, weights_only=True)
    model = FasterViT('0', out_norm=None)
    model.load_state_dict(content['state_dict'], strict=True)
    assert "arch='0'" in done.stdout
    again = run_tool('convert_weights.py', authors_file[0], out, cwd=tmp_path)
    assert again.returncode != 0 and 'exists' in again.stderr  # loses nothing


def test_convert_weights_writes_safetensors_by_default(authors_file, tmp_path):
    done = run_tool('convert_weights.py', authors_file[0], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / 'fastervit_0_224_1k.safetensors'
    assert [p.name for p in tmp_path.iterdir()] == [out.name]
    report = load_backbone(model := FasterViT('0', out_norm=None), str(out))
    assert report.fresh == [] and torch.equal(
        model.stem.conv1.weight, authors_file[1].state_dict()['patch_embed.conv_down.0.weight'])
    back = tmp_path / 'back.pth'  # and it is read where a .pth is
    assert run_tool('convert_weights.py', out, back, cwd=tmp_path).returncode == 0
    tensors = load_file(out)
    assert {k: v.tolist() for k, v in tensors.items() if 'norm' in k} == {
        k: v.tolist() for k, v in torch.load(back, weights_only=True)['state_dict'].items()
        if 'norm' in k}
    without = run_tool('convert_weights.py', out, 'x.safetensors', '--classifier', cwd=tmp_path)
    assert without.returncode == 1 and 'holds no classifier' in without.stderr


def test_convert_weights_refuses_a_foreign_file(tmp_path):
    torch.save(dict(a=torch.rand(2)), tmp_path / 'foreign.pth')
    done = run_tool('convert_weights.py', tmp_path / 'foreign.pth', tmp_path / 'out.pth',
                    cwd=tmp_path)
    assert done.returncode != 0 and 'no FasterViT' in done.stderr
    assert not (tmp_path / 'out.pth').exists()
