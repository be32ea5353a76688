"""The benchmark measures what it says; no test here guards a time."""
import json
import subprocess
import sys

import matplotlib.image
import pytest
import torch

from fastervit_mm import benchmark
from fastervit_mm.benchmark import measure
from fastervit_mm.benchmark.peers import PEERS, AuthorsMaps
from tests.conftest import REPO

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    stem = tmp_path_factory.mktemp('bench') / 'figures'
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', str(REPO / 'tools/benchmark.py'), '--models',
         'fastervit-0', 'fastervit-2:eager', 'convnext-t:channels_last', '--modes', 'eager',
         'deployed', 'graph', '--sizes', '64x96', '128x96', '--batches', '1', '2',
         '--rounds', '2', '--warmup', '1', '--out', str(stem)],
        capture_output=True, text=True, cwd=stem.parent)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return json.loads(stem.with_suffix('.json').read_text()), stem, done.stdout


def assert_measured(r):
    assert r['error'] is None
    assert len(r['all_seconds']) == 2 and r['low'] <= r['seconds'] <= r['high']
    assert r['images_per_second'] == pytest.approx(r['batch'] / r['seconds'])
    assert r['peak_bytes'] > 0 and 0 < r['fraction_of_peak'] < 2


def test_every_case_has_figures_or_a_reason(report):
    content, _, output = report
    assert len(content['results']) == 2 * 2 * (3 + 1 + 1)
    for r in content['results']:
        if r['mode'] == 'graph':
            assert 'need a GPU' in r['error'] and r['seconds'] is None
        else:
            assert_measured(r)
    assert 'forward, 64 x 96, batch 1, fp32' in output and 'CUDA graphs need a GPU' in output


def test_a_training_step_has_its_backward_pass():
    content = benchmark.run(['fastervit-0'], [(64, 96)], [1], ['fp32'], ['eager', 'deployed'],
                            ['forward', 'train'], rounds=2, warmup=1)
    forward, _, train, deployed = content['results']
    assert_measured(forward)
    assert_measured(train)
    assert train['multiply_adds'] > 2 * forward['multiply_adds']
    assert train['peak_bytes'] > 2 * forward['peak_bytes']
    assert 'only the forward step' in deployed['error']


def test_the_report_says_where_and_how(report):
    content, _, _ = report
    assert content['machine']['torch'] == torch.__version__ and content['machine']['cpu']
    assert '--models fastervit-0' in content['command'] and content['date']
    assert all(content['matmul_peak_flops']['fp32'][by] > 1e9 for by in ('mm', 'conv'))


def test_pictures(report):
    _, stem, output = report
    for name in ('accuracy', 'pixels', 'latency'):
        path = stem.with_name(f'figures-{name}.png')
        assert matplotlib.image.imread(path).std() > 0.05
        assert path.name in output


def test_multiply_adds_are_those_of_the_design_page():
    """8.97 G for FasterViT-2 at 224 with the classifier, whose share is 0.8 M."""
    model = PEERS['fastervit-2'].build((224, 224)).eval()
    image = torch.randn(1, 3, 224, 224)

    def step():
        with torch.no_grad():
            model(image)
    assert measure.multiply_adds(step) / 1e9 == pytest.approx(8.97, rel=0.01)


def test_the_authors_backbone_gives_the_same_maps(authors):
    """What is measured as theirs is theirs: at a square size it equals ours on the same weights."""
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


@pytest.mark.parametrize('name', ['swin-t', 'swinv2-t', 'convnext-t', 'hiera-t', 'gcvit-t'])
def test_peers_give_four_maps(name):
    with torch.no_grad():
        maps = PEERS[name].build((256, 256)).eval()(torch.randn(1, 3, 256, 256))
    assert len(maps) == 4 and {64, 32, 16, 8} <= {n for m in maps for n in m.shape}


@pytest.mark.parametrize('name', [n for n, p in PEERS.items() if p.whole])
def test_whole_networks_predict_through_the_same_heads(name):
    network = PEERS[name].build((64, 96)).eval()
    with torch.no_grad():
        assert len(network(torch.randn(1, 3, 64, 96))) == 1
    other = PEERS[name.replace('fastervit-2', 'swin-t')].build((64, 96))
    heads = {n: p.shape for n, p in network.model.named_parameters() if 'head' in n}
    assert heads == {n: p.shape for n, p in other.model.named_parameters() if 'head' in n}
    assert len(heads) > 10


def test_peak_memory_is_what_was_alive_at_once():
    def step():
        a = torch.ones(1000, 1000)  # 4 MB
        b = a + 1
        del a
        return b * 2
    assert measure.peak_memory(step, CPU) == pytest.approx(8e6, rel=0.01)


def test_cases_take_turns():
    order = []
    steps = {name: lambda name=name: order.append(name) for name in 'abc'}
    seconds = measure.interleave(steps, 3, CPU)
    assert ''.join(order) == 'abcbcacab' and all(len(s) == 3 for s in seconds.values())


@pytest.mark.parametrize('arguments, message', [
    (dict(models=['resnet']), "models='resnet': give some of fastervit-0"),
    (dict(precisions=['fp8']), "precisions=.'fp8'.: give some of fp32")])
def test_bad_arguments_are_named(arguments, message):
    settings = dict(models=['fastervit-0'], sizes=[(64, 64)], batches=[1], precisions=['fp32'],
                    modes=['eager'], steps=['forward'])
    with pytest.raises(ValueError, match=message):
        benchmark.run(**{**settings, **arguments})
