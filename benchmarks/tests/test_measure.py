"""Laps on a GPU, on a clock that only calls move; and graphs, without one."""
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from benchmarks.speed import measure

CPU, CUDA = torch.device('cpu'), torch.device('cuda')


class Clock:
    """Time that a call of 0.7 ms moves, for the host and for the events of a GPU."""

    def __init__(self, monkeypatch):
        self.now, self.events = 100., []
        clock = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.at = clock.now
                clock.events.append(self.at)

            def synchronize(self):
                pass

            def elapsed_time(self, end):
                return 1e3 * (end.at - self.at)
        monkeypatch.setattr(measure, 'time', SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(torch.cuda, 'Event', Event)
        monkeypatch.setattr(torch.cuda, 'synchronize', lambda device=None: None)

    def call(self):
        self.now += 7e-4


@pytest.mark.parametrize('device, burnt', [(CPU, 0), (CUDA, 2)])
def test_laps_last_50_ms_behind_a_burn_in(device, burnt, monkeypatch):
    clock = Clock(monkeypatch)
    timing = measure.measure(clock.call, device, laps=4)
    assert timing.seconds == pytest.approx([7e-4] * 4)
    assert timing.median == pytest.approx(7e-4) and timing.low <= timing.high
    assert timing.calls * 7e-4 >= 0.05
    if device.type == 'cuda':
        assert clock.events[0] >= 100 + burnt
        *_, started, ended = clock.events
        assert ended - started >= 0.05
    else:
        assert not clock.events  # timed by the host's clock


def test_a_step_longer_than_a_lap_is_called_once_a_lap(monkeypatch):
    clock = Clock(monkeypatch)
    calls = []

    def slow():
        calls.append(1)
        clock.now += 0.3
    assert measure.measure(slow, CPU, laps=3).seconds == pytest.approx([0.3] * 3)
    assert len(calls) == 3


class Capture:
    """Stands in for CUDA graphs: a replay computes again what was called while capturing."""

    def __init__(self, monkeypatch, call, replays=True):
        self.order, self.reserved, self._replays, self._call = [], 1000, replays, call
        for name, value in dict(
                Stream=lambda: SimpleNamespace(wait_stream=lambda other: None),
                current_stream=lambda: SimpleNamespace(wait_stream=lambda other: None),
                stream=lambda stream: nullcontext(), synchronize=lambda: None,
                empty_cache=lambda: None, memory_reserved=lambda: self.reserved,
                CUDAGraph=lambda: SimpleNamespace(replay=self.replay), graph=self.graph).items():
            monkeypatch.setattr(torch.cuda, name, value)

    def graph(self, graph):
        self.order.append('capture')
        self.reserved += 64
        return nullcontext()

    def call(self):
        self.order.append('call')
        self.outputs = self._call()
        return self.outputs

    def replay(self):
        if self._replays:
            for output, value in zip(self.outputs, self._call(), strict=True):
                output.copy_(value)


def maps():
    return torch.full((2, 3), 5.), torch.arange(4.)


def test_a_graph_is_captured_warm_and_says_what_it_keeps(monkeypatch):
    capture = Capture(monkeypatch, maps)
    graph = measure.Graph(capture.call)
    assert capture.order == ['call'] * 3 + ['capture', 'call']
    assert graph.bytes == 64
    assert torch.equal(graph()[0], maps()[0])


def test_a_graph_that_does_not_replay_is_refused(monkeypatch):
    with pytest.raises(measure.NotMeasured, match='a replay does not give'):
        measure.Graph(Capture(monkeypatch, maps, replays=False).call)
