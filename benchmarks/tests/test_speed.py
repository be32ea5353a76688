"""The benchmark measures what it claims; no test asserts a time."""
import json
import os
import sys
import threading

import matplotlib.image
import pytest
import torch
from rich.console import Console

from benchmarks import speed
from benchmarks.speed import measure
from benchmarks.speed.cases import modes_of
from benchmarks.speed.compare import best_modes, equals
from benchmarks.speed.peers import EQUAL, PEERS, SETS, AuthorsMaps
from benchmarks.speed.workers import Worker
from tests.conftest import REPO
from tests.running import run_tool

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    stem = tmp_path_factory.mktemp('bench') / 'figures'
    done = run_tool(
        'benchmarks.speed', '--models', 'fastervit-0', 'fastervit-2:eager',
        'convnext-t:channels_last',
        '--modes', 'eager', 'graph', '--sizes', '64x96', '128x96', '--batches', '1', '2',
        '--rounds', '2', '--warmup', '1', '--out', stem, cwd=stem.parent,
        environment=dict(OMP_NUM_THREADS='1'))
    assert done.returncode == 0, done.output[-3000:]
    return json.loads(stem.with_suffix('.json').read_text()), stem, done.stdout


def assert_measured(r):
    assert r['error'] is None
    assert len(r['all_seconds']) == 2 and r['low'] <= r['seconds'] <= r['high']
    assert r['images_per_second'] == pytest.approx(r['batch'] / r['seconds'])
    assert r['peak_bytes'] > 0 and 0 < r['fraction_of_peak'] < 2


def test_every_case_has_figures_or_a_reason(report):
    content, _, output = report
    assert len(content['results']) == 2 * 2 * (2 + 1 + 1)
    for r in content['results']:
        if r['mode'] == 'graph':
            assert 'need a GPU' in r['error'] and r['seconds'] is None
        else:
            assert_measured(r)
    assert 'forward, 64 x 96, batch 1, fp32' in output


def test_a_refused_case_has_its_reason_and_no_number_in_the_table(report):
    content, _, output = report
    row, = {line.rstrip() for line in output.splitlines() if line.split()[:2] == [
        'fastervit-0', 'graph'] and 'reason' not in line and ':' not in line}
    assert row.split() == ['fastervit-0', 'graph', 'refused']
    assert 'fastervit-0 graph refused: graph: CUDA graphs need a GPU' in output
    assert 'best: fastervit-0 ' in output


def test_a_training_step_has_its_backward_pass():
    content = speed.run(['fastervit-0'], [(64, 96)], [1], ['fp32'], ['eager', 'deployed'],
                            ['forward', 'train'], rounds=2, warmup=1)
    forward, _, train, deployed = content['results']
    assert_measured(forward)
    assert_measured(train)
    assert train['multiply_adds'] > 2 * forward['multiply_adds']
    assert train['peak_bytes'] > 2 * forward['peak_bytes']
    assert 'only the forward step' in deployed['error']


def test_the_report_names_machine_and_command(report):
    content, _, output = report
    units = content['machine']['matrix_units']
    # PyTorch's own word for one of them.
    assert ('amx_int8' in units) == torch.cpu._is_amx_tile_supported()
    assert ', '.join([*units, f'{content["machine"]["threads"]} threads']) in output
    assert content['machine']['torch'] == torch.__version__ and content['machine']['cpu']
    assert content['machine']['versions']['timm']
    assert '--models fastervit-0' in content['command'] and content['date']
    settings = content['settings']
    assert settings['inference'] == 'torch.inference_mode' and settings['tf32'] is False
    assert settings['threads'] == content['machine']['threads']
    assert settings['compile']['fail_on_recompile_limit_hit'] is True
    assert all(content['matmul_peak_flops']['fp32'][by] > 1e9 for by in ('mm', 'conv'))


def test_pictures(report):
    _, stem, output = report
    for name in ('accuracy', 'pixels', 'latency', 'equal-accuracy'):
        path = stem.with_name(f'figures-{name}.png')
        assert matplotlib.image.imread(path).std() > 0.05
        assert path.name in output


def test_multiply_adds_of_fastervit_2_are_8_97_g():
    """8.97 G for FasterViT-2 at 224 with the classifier, whose share is 0.8 M."""
    model = PEERS['fastervit-2'].build((224, 224)).eval()
    image = torch.randn(1, 3, 224, 224)

    def step():
        with torch.no_grad():
            model(image)
    assert measure.multiply_adds(step) / 1e9 == pytest.approx(8.97, rel=0.01)


def test_the_authors_backbone_gives_the_same_maps(authors):
    """At a square size the network measured as theirs equals ours on the same weights."""
    from fastervit_mm import FasterViT
    from fastervit_mm.weights import translate
    theirs = AuthorsMaps('0', (224, 224)).eval()
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith('downsamples.')}
    state.update({f'levels.{k.split(".")[1]}.downsample.{k.split(".", 2)[2]}': v
                  for k, v in theirs.state_dict().items() if k.startswith('downsamples.')})
    ours = FasterViT('0', out_norm=None)
    ours.load_state_dict(translate(state))
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        for a, b in zip(ours.eval()(image), theirs(image), strict=True):
            assert ((a - b).abs().max() / b.abs().max()).item() < 1e-5


@pytest.mark.parametrize('name', ['swin-t', 'swinv2-t', 'convnext-t', 'hiera-t', 'gcvit-t',
                                  'caformer-s18', 'convformer-s36'])
def test_peers_give_four_maps(name):
    with torch.no_grad():
        maps = PEERS[name].build((256, 256)).eval()(torch.randn(1, 3, 256, 256))
    assert len(maps) == 4 and {64, 32, 16, 8} <= {n for m in maps for n in m.shape}


@pytest.mark.parametrize('kind', ['cascade', 'upernet'])
def test_whole_networks_predict_through_the_same_heads(kind):
    heads = []
    for name in (f'{kind}-fastervit-2', f'{kind}-swin-t'):
        network = PEERS[name].build((64, 96)).eval()
        with torch.no_grad():
            assert len(network(torch.randn(1, 3, 64, 96))) == 1
        heads.append({n: p.shape for n, p in network.model.named_parameters() if 'head' in n})
    assert heads[0] == heads[1] and len(heads[0]) > 10


def test_every_whole_network_is_one_of_these():
    assert {n for n, p in PEERS.items() if p.whole} == {
        f'{kind}-{backbone}' for kind in ('cascade', 'upernet')
        for backbone in ('fastervit-2', 'swin-t')}


def test_peak_memory_counts_tensors_alive_at_once():
    def step():
        a = torch.ones(1000, 1000)  # 4 MB
        b = a + 1
        del a
        return b * 2
    assert measure.peak_memory(step, CPU) == pytest.approx(8e6, rel=0.01)


def test_cases_take_turns():
    order = []
    steps = {name: lambda name=name: order.append(name) for name in 'abc'}
    seconds = measure.interleave(steps, 3, CPU, lap_seconds=0)
    assert ''.join(order) == 'abcbcacab' and all(len(s) == 3 for s in seconds.values())


@pytest.mark.parametrize('arguments, message', [
    (dict(models=['resnet']), "models='resnet': give some of fastervit-0"),
    (dict(precisions=['fp8']), "precisions='fp8': give some of fp32"),
    (dict(sets=['fast']), "sets='fast': give some of paper")])
def test_bad_arguments_are_named(arguments, message):
    settings = dict(models=['fastervit-0'], sizes=[(64, 64)], batches=[1], precisions=['fp32'],
                    modes=['eager'], steps=['forward'])
    with pytest.raises(ValueError, match=message):
        speed.run(**{**settings, **arguments})


class Watched(Worker):
    """Records each process, and what draws while it measures."""
    pids: list = []
    drawing: list = []

    def __init__(self, *args):
        super().__init__(*args)
        self.pids.append(self._process.pid)

    def ask(self, name, *args):
        if name == 'lap':
            self.drawing += [t for t in threading.enumerate() if 'Refresh' in type(t).__name__]
        return super().ask(name, *args)


def test_each_case_has_a_process_and_the_console_rests_while_timing(monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules[speed.run.__module__], 'Worker', Watched)
    saved = tmp_path / 'report.json'
    content = speed.run(
        ['fastervit-0'], [(64, 64), (64, 96)], [1], ['fp32'], ['eager'], ['forward'], rounds=2,
        warmup=0, memory=False, console=Console(force_terminal=True), save_to=saved)
    assert all(r['seconds'] for r in content['results'])
    assert len(set(Watched.pids) - {os.getpid()}) == len(Watched.pids) == 2 + 2  # two products
    assert not Watched.drawing
    assert json.loads(saved.read_text())['results'][1]['seconds']


def test_a_dead_process_is_reported_as_the_reason():
    with pytest.raises(measure.NotMeasured, match='its process ended with code 3'):
        Worker(os._exit, 3)


@pytest.mark.parametrize('name', ['swin-t', 'swin-s', 'swin-b', 'caformer-s18', 'hiera-t'])
def test_peers_have_fused_attention(name):
    assert _fused(name) == {True}
    assert _fused('swin-t-unfused') == {False}


def _fused(name):
    with torch.device('meta'):
        network = PEERS[name].build((224, 224))
    return {m.fused_attn for m in network.modules() if hasattr(m, 'fused_attn')}


def test_swin_computes_the_same_fused():
    image = torch.randn(1, 3, 64, 64)
    fused, spelt_out = (PEERS[name].build((64, 64)).eval() for name in ('swin-t', 'swin-t-unfused'))
    spelt_out.load_state_dict(fused.state_dict())
    with torch.no_grad():
        for a, b in zip(fused(image), spelt_out(image), strict=True):
            assert ((a - b).abs().max() / b.abs().max()).item() < 1e-4


def test_peers_are_equally_accurate_but_for_two():
    pairs = {(ours, peer): abs(PEERS[ours].top1 - PEERS[peer].top1)
             for ours, *peers in SETS['equal-accuracy'] for peer in peers}
    far = {pair for pair, difference in pairs.items() if round(difference, 6) > EQUAL}
    assert far == {('fastervit-2', 'swin-b'), ('fastervit-2', 'caformer-s18')}  # as SETS says
    assert {ours for ours, _ in pairs.keys() - far} == {f'fastervit-{n}' for n in '012'}
    assert all(name in PEERS for teams in SETS.values() for team in teams for name in team)


def test_speed_at_equal_accuracy_is_that_of_the_best_modes():
    def result(model, mode, seconds, group=0):
        return dict(model=model, mode=mode, step='forward', size=[8, 8], batch=2, precision='fp32',
                    group=group, seconds=seconds, images_per_second=seconds and 2 / seconds,
                    error=None)
    results = [result('fastervit-2', 'eager', 4.), result('fastervit-2', 'compiled', 2.),
               result('fastervit-2', 'graph', None), result('swin-b', 'eager', 3.),
               result('swin-b', 'onednn', 5.), result('convformer-s36', 'eager', 1.),
               result('fastervit-2', 'eager', 0.1, group=1)]  # at another time
    assert [(r['model'], r['mode']) for r in best_modes(results)] == [
        ('fastervit-2', 'compiled'), ('swin-b', 'eager'), ('convformer-s36', 'eager'),
        ('fastervit-2', 'eager')]
    swin, convformer = equals(results)
    assert (swin['mode'], swin['peer_mode'], swin['faster']) == ('compiled', 'eager', 1.5)
    assert not swin['equal'] and convformer['equal'] and convformer['faster'] == 0.5


def test_every_network_is_tried_in_every_mode_that_it_has():
    for device, step, precision in [('cpu', 'forward', 'fp32'), ('cuda', 'forward', 'amp'),
                                    ('cpu', 'train', 'bf16')]:
        ours = modes_of('fastervit-2', device, step, precision)
        theirs = modes_of('swin-t', device, step, precision)
        assert set(theirs) == {mode for mode in ours if 'deployed' not in mode}
        assert all(part in speed.MODES for mode in ours for part in mode.split('+'))
        assert any('compiled' in mode for mode in theirs)
        assert any('graph' in mode for mode in theirs) == (device == 'cuda')
        assert any('deployed' in mode for mode in ours) == (step == 'forward')
    # Compiled, oneDNN's operator takes layers with a bias, and these have none: refused.
    assert 'channels_last+compiled' in modes_of('convformer-s36', 'cpu', 'forward', 'fp32')


@pytest.mark.parametrize('path', sorted(
    p for p in (REPO / 'benchmarks').glob('*.json') if 'matmul_peak_flops' in p.read_text()),
    ids=lambda path: path.name)
def test_reports_of_earlier_versions_are_read(path, tmp_path):
    content = json.loads(path.read_text())
    assert all(table.row_count for table in speed.tables(content))
    speed.draw(content, tmp_path / 'figures')
