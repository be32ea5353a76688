"""The comparison on the long-range task: it goes on where it was stopped, and shows what it has."""
import json

import matplotlib.image
import pytest

from fastervit_mm.benchmark.long_range import NETWORKS, compare, draw, table
from fastervit_mm.datasets import long_range
from tests.conftest import REPO, load_program

KEPT = REPO / 'benchmarks/long-range.json'


@pytest.fixture(scope='module')
def short(tmp_path_factory):
    """What trains for a moment, on as many images as are used then."""
    root = tmp_path_factory.mktemp('data') / 'long_range'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_range, 'SPLITS', {'train': (0, 8), 'val': (1_000_000, 4)})
        long_range.make_long_range(root)
        yield {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2,
               'param_scheduler': None, 'default_hooks.logger.interval': 1,
               'train_dataloader.batch_size': 2,
               'train_dataloader.dataset.data_root': str(root),
               'val_dataloader.dataset.data_root': str(root)}


def test_it_goes_on_with_what_is_missing(short, tmp_path):
    config, out = str(REPO / 'configs/mmseg/fcn_fvit_long_range.py'), tmp_path / 'figures.json'
    names = ['windows', 'swin']
    compare(config, names[:1], [0], out, tmp_path, 'typed', short)
    first = json.loads(out.read_text())
    report = compare(config, names, [0], out, tmp_path, 'typed again', short)
    assert report['networks'][names[0]] == first['networks'][names[0]]  # not trained again
    assert list(report['networks']) == names == list(json.loads(out.read_text())['networks'])
    for name in names:
        run, = report['networks'][name]['runs'].values()
        assert run['iterations'] == 2 and 0 <= run['accuracy'] <= 100
        assert len(run['by_distance']) == 5 and run['seconds_per_step'] > 0
        assert 1e4 < report['networks'][name]['parameters'] < 1e6 < report[
            'networks'][name]['multiply_adds'] < 1e8
    assert [NETWORKS[name].title for name in names] == [
        line.split('|')[1].strip() for line in table(report)[2:]]
    assert matplotlib.image.imread(draw(report, tmp_path / 'long-range')).std() > 0.05
    with pytest.raises(ValueError, match='holds figures of .*Give another file'):
        compare(config, names, [0], out, tmp_path, 'typed', {'train_cfg.max_iters': 3})


def test_each_network_is_what_it_is_called():
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope
    init_default_scope('mmseg')
    config = str(REPO / 'configs/mmseg/fcn_fvit_long_range.py')

    def built(name):
        cfg = Config.fromfile(config)
        cfg.merge_from_dict({'model.backbone': dict(NETWORKS[name].backbone)})
        return MODELS.build(cfg.model.backbone)
    variant = {name: built(name).variant for name in NETWORKS if 'swin' not in name}
    plain = variant['carriers']
    assert plain.hierarchical and plain.carrier_bias == 8 and plain.ct_size == 1
    assert not plain.propagate_carriers and variant['propagated'].propagate_carriers
    assert variant['ct-2'].ct_size == 2 and variant['bias-0'].carrier_bias == 0
    for name in ('windows', 'global'):
        assert not variant[name].hierarchical
    assert variant['global'].window_size[0] == 128 // 16  # the whole map


def test_the_page_shows_the_figures_that_are_kept():
    page = (REPO / 'docs/long_range.md').read_text()
    shown = page.split(load_program('benchmarks/long_range.py').MARK)[1]
    lines = table(json.loads(KEPT.read_text()))
    assert shown.strip().startswith('\n'.join(lines))
