"""The high-resolution comparison counts real operations and marks what was not run."""
import json
from functools import partial

import matplotlib.image
import pytest
import torch

from benchmarks.high_resolution import study as high
from benchmarks.high_resolution.study import NETWORKS, compare, count, draw, tables
from benchmarks.speed.cases import Case, Result
from benchmarks.speed.measure import multiply_adds, peak_memory
from benchmarks.speed.peers import PEERS
from tests.conftest import REPO

KEPT = REPO / 'benchmarks/high-resolution.json'
CPU = torch.device('cpu')


@pytest.fixture
def two_threads(request):
    """With a single thread PyTorch does not use oneDNN for 1 x 1 convolutions."""
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(2)


@pytest.mark.parametrize('name', ['fastervit-0', 'swin-hat-t', 'swin-t', 'hiera-t', 'vit-s'])
def test_counts_equal_those_of_a_real_step(name):
    """Fused attention too, which PyTorch's counter leaves out on a CPU."""
    network, image = PEERS[name].build((256, 256)).eval(), torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        assert count(name, (256, 256)).total == multiply_adds(lambda: network(image))


def test_a_plain_transformer_has_its_attention_counted():
    """Of 257 tokens, 384 wide: linear layers, then attention."""
    n, dim = 256 + 1, 384
    assert count('vit-s', (256, 256)).total == (
        256 * 3 * 16**2 * dim + 12 * (12 * n * dim**2 + 2 * n**2 * dim))


@pytest.mark.parametrize('name, window_size, ct_size', [
    ('fastervit-0', 7, 2), ('fastervit-0-ct1', 7, 1), ('fastervit-0-ct4', 7, 4),
    ('fastervit-0-w14', 14, 2), ('fastervit-0-w14-ct4', 14, 4), ('fastervit-0-windows', 7, 0)])
@pytest.mark.parametrize('side', [512, 3840])
def test_carriers_attention_is_quadratic_in_their_number(name, window_size, ct_size, side):
    carriers = (ct_size * -(-(side // 16) // window_size))**2  # of whole windows
    assert count(name, (side, side)).carriers == 6 * 2 * carriers**2 * 256


def test_a_second_run_measures_only_missing_rows(two_threads, tmp_path, monkeypatch):
    monkeypatch.setattr(high, 'SHORT', float('inf'))  # three laps each on a busy machine too
    out = tmp_path / 'figures.json'
    said = []
    compare(['fastervit-0-windows'], [64], [], out, show=said.append, note='quiet')
    first = json.loads(out.read_text())
    assert first['note'] == 'quiet' and first['command'] and len(said) == 2
    report = compare(['fastervit-0-windows', 'vit-s'], [64, 128], [256], out,
                     show=said.append)
    assert report['results'][0]['all_seconds'] == first['results'][0]['all_seconds']  # once
    assert [(r['model'], r['size'][0]) for r in report['results']] == [
        (name, side) for side in (64, 128) for name in ('fastervit-0-windows', 'vit-s')]
    for r in report['results']:
        assert r['error'] is None and len(r['all_seconds']) == 3 and r['peak_bytes'] > 1e5
        assert r['seconds'] > 0 and r['mode'] == high.MODE
    with pytest.raises(ValueError, match='holds figures of .*Give another file'):
        compare(['vit-s'], [64], [], out, longest=1)
    time, memory, counts, share = '\n'.join(tables(report)).split('\n\n**')
    assert [line.split('|')[1].strip() for line in time.splitlines()[4:]] == [
        NETWORKS['fastervit-0-windows'], NETWORKS['vit-s']]
    grown = report['counts']['vit-s']
    exponent = torch.tensor(grown['256'][0] / grown['128'][0]).log() / torch.tensor(4.).log()
    assert counts.splitlines()[-1].endswith(f'| {exponent:.2f} (128 to 256) |')
    assert 'MiB' in memory and len(share.splitlines()) == 4  # none has carriers
    assert matplotlib.image.imread(draw(report, tmp_path / 'figures.png')).std() > 0.05


def test_slow_networks_get_one_step_or_none(two_threads, tmp_path, monkeypatch):
    monkeypatch.setattr(high, 'SHORT', 0.)
    report = compare(['vit-s'], [64, 128], [], tmp_path / 'a.json', show=len)
    assert [len(r['all_seconds']) for r in report['results']] == [3, 1]
    report = compare(['vit-s'], [64, 128, 256], [], tmp_path / 'b.json', longest=1e-6,
                     show=len)
    first, *others = report['results']
    assert first['seconds'] and first['error'] is None
    for r in others:
        assert r['seconds'] is None and r['error'].startswith('not run: ')
    assert tables(report)[4].endswith('| not run | not run |  |')


def test_the_step_that_checks_for_onednn_gives_the_memory(two_threads):
    case = Case(Result('vit-s', 'onednn', 'fp32', 'forward', (64, 96), 1), CPU, warmup=1)
    assert case.facts['peak_bytes'] == peak_memory(case.step, CPU) > 0
    assert case.facts['multiply_adds'] == multiply_adds(case.step)
    assert case.checked_seconds > 0


@pytest.mark.parametrize('arguments, message', [
    (dict(names=['resnet']), "networks='resnet': give some of fastervit-0"),
    (dict(sides=[128, 64]), r'sides=\[128, 64\]: give ascending numbers of at least 32'),
    (dict(sides=[16]), r'sides=\[16\]')])
def test_bad_arguments_are_named(arguments, message, tmp_path):
    settings = dict(names=['vit-s'], sides=[64], counted=[], out=tmp_path / 'x.json')
    with pytest.raises(ValueError, match=message):
        compare(**{**settings, **arguments})


def test_saved_counts_are_those_of_the_current_networks():
    """A changed network needs new figures."""
    kept = json.loads(KEPT.read_text())
    assert len(tables(kept)) > 10
    assert list(kept['counts']['fastervit-0']['960']) == list(count('fastervit-0', (960, 960)))
