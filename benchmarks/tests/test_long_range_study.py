"""The long-range study: it resumes, and shows partial results."""
import json
import re
from functools import partial

import matplotlib.image
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from benchmarks.long_range import study
from benchmarks.long_range.demo import CONFIG
from benchmarks.long_range.study import (
    NETWORKS,
    Scaled,
    Task,
    add_times,
    compare,
    draw,
    table,
)
from benchmarks.long_range.task import make_long_range
from fastervit_mm.engine.launch import load_config
from tests.conftest import REPO

DEMO = [CONFIG, CONFIG.replace('.py', '_windows.py')]
KEPT = [REPO / f'benchmarks/long-range{of}.json' for of in ('', '-256')]


@pytest.fixture(scope='module')
def short(tmp_path_factory):
    """Settings of a very short training on few images."""
    root = tmp_path_factory.mktemp('data') / 'long_range'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, 'make_long_range', partial(make_long_range, train=8, val=4))
        yield {'train_cfg.max_iters': 4, 'param_scheduler': None,
               'default_hooks.logger.interval': 1, 'train_dataloader.batch_size': 2,
               **{f'{loader}_dataloader.dataset.data_root': str(root)
                  for loader in ('train', 'val', 'test')}}


def test_a_second_run_trains_only_missing_networks(short, tmp_path):
    task, out = Task(CONFIG, options=short), tmp_path / 'figures.json'
    names = ['windows', 'swin']
    compare(task, names[:1], [0], out, tmp_path, [160])
    first = json.loads(out.read_text())
    report = compare(task, names, [0], out, tmp_path, [160])
    assert report['networks'][names[0]] == first['networks'][names[0]]  # not trained again
    assert list(report['networks']) == names == list(json.loads(out.read_text())['networks'])
    for name in names:
        run, = report['networks'][name]['runs'].values()
        assert run['iterations'] == 4 and 0 <= run['accuracy'] <= 100
        assert len(run['by_distance']) == len(run['larger']['160']['by_distance']) == 5
        assert list(run['by_step']) == list('1234') and run['by_step']['4'] == run['accuracy']
        assert 1e4 < report['networks'][name]['parameters'] < 1e6 < report[
            'networks'][name]['multiply_adds'] < 1e8
    report = add_times(task, out, batch=1, rounds=1)
    assert all(report['networks'][name]['milliseconds'] > 0 for name in names)
    assert [NETWORKS[name].title for name in names] == [
        line.split('|')[1].strip() for line in table(report)[2:]]
    assert {line.count('|') for line in table(report)} == {12}
    assert matplotlib.image.imread(draw(report, tmp_path / 'long-range')).std() > 0.05
    with pytest.raises(ValueError, match='holds figures of .*Give another file'):
        compare(task, names, [0], out, tmp_path)


TASK = Task(CONFIG)


def built(name, task=TASK):
    init_default_scope('mmseg')
    model = MODELS.build(load_config(CONFIG, cfg_options=task.settings(name)).model.backbone)
    model.init_weights()
    return model


def test_each_network_matches_its_name():
    names = [name for name in Task(CONFIG).fitting() if 'swin' not in name]
    variant = {name: built(name).variant for name in names}
    plain = variant['carriers']
    assert plain.hierarchical and plain.carrier_bias == 8 and plain.ct_size == 1
    assert not plain.propagate_carriers and variant['propagated'].propagate_carriers
    assert variant['ct-2'].ct_size == 2 and variant['bias-0'].carrier_bias == 0
    for name in ('windows', 'global'):
        assert not variant[name].hierarchical
    assert variant['global'].window_size[0] == 128 // 16  # the whole map
    assert {variant[name].window_size[0] for name in names} == {2, 4, 8}
    assert 'ct-4' not in variant and built('ct-4', Task(CONFIG, 256, 4)).variant.ct_size == 4
    large = Task(CONFIG, 256, 4)
    assert built('global', large).variant.window_size[0] == 16
    assert built('swin-hat', large).stages[2].window_size == 4
    assert 'windows-4' in names and 'windows-4' not in large.fitting()  # it is 'carriers' there
    for name in ('swin', 'swin-hat'):
        weight = built(name).get_parameter(dict(
            swin='stages.2.blocks.0.attn.w_msa.qkv.weight')
            .get(name, 'stages.2.blocks.0.attn.qkv.weight'))
        assert weight.std() > 0.05  # Xavier's, not a normal of 0.02


def test_initial_values_are_changed_only_where_stated():
    def of(name, part):
        torch.manual_seed(0)
        return next(value for key, value in built(name).named_parameters()
                    if re.search(rf'stages\.2\..*{part}$', key))
    queries = r'carriers?[._]attn\.qkv\.weight'
    assert torch.equal(of('sharp', queries)[:128], 2 * of('carriers', queries)[:128])
    assert torch.equal(of('sharp', queries)[128:], of('carriers', queries)[128:])
    assert not of('empty', r'carrier_init\.conv\.weight').any()
    torch.manual_seed(0)
    flat = {key for key, value in built('flat').named_parameters() if not value.any()}
    assert any('position' in key and 'weight' in key for key in flat)
    torch.manual_seed(0)
    assert not any('position' in key and 'weight' in key
                   for key, value in built('carriers').named_parameters() if not value.any())
    assert of('bias-4', 'carrier_bias').eq(4).all()
    assert of('normal', queries).std() < 0.03 < of('carriers', queries).std()
    assert of('layer-scale', r'layer_scale1\.gamma').eq(1e-5).all()
    with pytest.raises(ValueError, match="names='qkw': no parameter of Linear has such a name"):
        Scaled('qkw', 2.)(torch.nn.Linear(1, 1))


@pytest.mark.parametrize('path', KEPT, ids=lambda path: path.stem)
def test_figures_of_earlier_versions_are_read(path, tmp_path):
    report = json.loads(path.read_text())
    shown = [line.split('|')[1].strip() for line in table(report)[2:]]
    assert shown == [NETWORKS[name].title for name in NETWORKS if name in report['networks']]
    assert draw(report, tmp_path / 'figure').is_file()


def test_the_long_range_networks_differ_in_carriers_alone():
    """Without them a cell sees its window and nearby cells."""
    carriers, windows = (Config.fromfile(str(p)) for p in DEMO)
    windows.model.backbone.arch.pop('hierarchical')
    assert windows.model == carriers.model and windows.optim_wrapper == carriers.optim_wrapper
    for path, sees in zip(DEMO, (True, False)):
        backbone = MODELS.build(Config.fromfile(str(path)).model.backbone).eval()
        image = torch.rand(1, 3, 128, 128, requires_grad=True)
        out, = backbone(image)
        assert out.shape == (1, 64, 8, 8)
        out[..., 1, 1].square().sum().backward()  # of 16 pixels, in a window of 32
        seen = image.grad.abs().sum((0, 1)) > 0
        assert seen[:56, :56].float().mean() > 0.9 and seen[56:].any() == sees
