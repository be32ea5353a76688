"""Cases whose mode did not take effect are refused."""
from functools import partial

import pytest
import torch
from torch import nn

from benchmarks.speed import cases
from benchmarks.speed.cases import Case, Compiler, Result
from benchmarks.speed.measure import NotMeasured
from benchmarks.speed.peers import PEERS, Peer
from fastervit_mm import FasterViT
from tests.conftest import TINY, needs_compiler

CPU = torch.device('cpu')


class Maps(nn.Module):
    """A convolution and, on request, a linear layer."""

    def __init__(self, linear=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.linear = nn.Linear(8, 8) if linear else nn.Identity()

    def forward(self, x):
        return self.linear(self.conv(x).permute(0, 2, 3, 1)),


class Uncompilable(Maps):
    forward = torch._dynamo.disable(Maps.forward)


@pytest.fixture
def case(monkeypatch):
    """Build a case of a network; compiled graphs run as traced, without Inductor."""
    monkeypatch.setattr(torch._dynamo, 'lookup_backend', lambda name: lambda graph, inputs: graph)
    torch._dynamo.reset()

    def build(network, mode, step='forward', **settings):
        monkeypatch.setitem(PEERS, 'small', Peer(lambda size: network))
        return Case(Result('small', mode, 'fp32', step, (64, 64), 1), CPU,
                    **dict(dict(memory=False), **settings))
    yield build
    torch._dynamo.reset()


@pytest.mark.parametrize('step', ['forward', 'train'])
def test_compiled_steps_run_the_graph_compiled_before(case, step):
    ready = case(Maps(), 'compiled', step)
    assert ready.facts['graphs'] == 1
    runs = ready.compiler.runs
    ready.lap()
    assert ready.compiler.runs > runs
    ready.verify()


def test_compiling_while_timed_is_refused(case):
    ready = case(Maps(), 'compiled')
    ready.lap()
    ready.image = torch.randn(1, 3, 20, 20)
    ready.step()
    with pytest.raises(NotMeasured, match='compiled again'):
        ready.verify()


def test_falling_back_while_timed_is_refused(case):
    ready = case(Maps(), 'compiled')
    ready.lap()
    compiled, ready.network = ready.network, ready.plain
    ready.step()
    ready.network = compiled
    with pytest.raises(NotMeasured, match='not run, while it was timed'):
        ready.verify()


def test_a_network_that_does_not_compile_is_refused(case):
    with pytest.raises(NotMeasured, match='torch.compile made nothing'):
        case(Uncompilable(), 'compiled')


def test_a_graph_for_any_size_is_refused(case, monkeypatch):
    monkeypatch.setattr(Compiler, 'compile', lambda self, network: torch.compile(
        network, backend=self, dynamic=True))
    with pytest.raises(NotMeasured, match='for any size'):
        case(Maps(), 'compiled')


def test_each_size_gets_its_own_graph(case):
    """Even in one process, where torch.compile's default makes the second graph dynamic."""
    def graphs(compiler, compiled):
        torch._dynamo.reset()
        for size in (16, 20, 24):
            compiled(torch.randn(1, 3, size, size))
        return compiler.graphs, compiler.dynamic
    ours, plain = Compiler(), Compiler()
    assert graphs(ours, ours.compile(Maps())) == (3, False)
    assert graphs(plain, torch.compile(Maps(), backend=plain)) == (2, True)


@torch._dynamo.config.patch(fail_on_recompile_limit_hit=False, recompile_limit=1)
def test_the_recompile_limit_is_an_error(case):
    settings = cases.settle(torch.get_num_threads())
    assert settings['compile']['fail_on_recompile_limit_hit'] is True
    compiled = Compiler().compile(Maps())
    compiled(torch.randn(1, 3, 16, 16))
    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
        compiled(torch.randn(1, 3, 20, 20))


@needs_compiler
def test_inductor_compiles(monkeypatch):
    """The only one here that needs a C++ compiler."""
    monkeypatch.setitem(PEERS, 'small', Peer(lambda size: Maps()))
    ready = Case(Result('small', 'channels_last+compiled', 'fp32', 'forward', (16, 16), 1), CPU)
    ready.lap()
    ready.verify()
    assert ready.facts['graphs'] == 1 and ready.facts['peak_bytes'] > 0
    assert 'multiply_adds' not in ready.facts


def test_onednn_is_refused_if_no_product_uses_it(case, request):
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(2)  # PyTorch calls oneDNN for no 1 x 1 convolution of a single thread
    assert case(Maps(linear=True), 'onednn').facts['graphs'] is None
    with pytest.raises(NotMeasured, match='no linear layer'):
        case(Maps(), 'onednn')


def test_deployed_is_refused_where_a_backbone_is_not(case, monkeypatch):
    small = FasterViT(TINY, out_norm=None)
    with pytest.raises(ValueError, match='Maps holds no FasterViT'):
        case(Maps(), 'deployed')
    with monkeypatch.context() as patch:
        patch.setattr(cases, 'switch_to_deploy', lambda network: network.eval())
        with pytest.raises(NotMeasured, match='deployed: a backbone is not'):
            case(small, 'deployed')
    case(small, 'deployed')


@pytest.mark.parametrize('mode, step, reason', [
    ('graph', 'forward', 'CUDA graphs need a GPU'), ('fast', 'forward', "mode='fast': give eager"),
    ('deployed', 'train', 'only the forward step')])
def test_impossible_cases_are_refused_before_building(mode, step, reason):
    with pytest.raises(NotMeasured, match=reason):
        Case(Result('fastervit-6', mode, 'fp32', step, (16, 16), 1), CPU)
