"""Laps and turns; that a graph's replay is checked."""
import math
import time

import pytest
import torch

from benchmarks.speed.measure import (
    Laps,
    NotMeasured,
    check_replay,
    interleave,
    median_seconds,
)

CPU = torch.device('cpu')


def test_a_lap_lasts_long_enough_for_the_clock():
    laps = Laps(lambda: time.sleep(0.001), CPU, lap_seconds=0.02)
    assert laps.lap() >= 0.001  # of one call, however many a lap has
    assert laps.calls > 1


def test_a_step_longer_than_a_lap_is_called_once_a_lap():
    calls = []
    laps = Laps(lambda: (calls.append(1), time.sleep(0.01)), CPU, lap_seconds=0.005)
    assert [laps.lap() >= 0.01 for _ in range(3)] == [True] * 3 and len(calls) == 3


def test_a_burn_in_calls_before_the_first_lap():
    calls = []
    Laps(lambda: calls.append(1), CPU, burn_in=0.001)
    assert calls


def test_steps_take_turns_and_each_begins_a_round():
    order = []
    steps = {name: lambda name=name: order.append(name) for name in 'abc'}
    seconds = interleave(steps, 3, CPU, lap_seconds=0)
    assert ''.join(order) == 'abcbcacab'
    assert all(len(laps) == 3 and min(laps) >= 0 for laps in seconds.values())


def test_the_median_is_of_one_call():
    assert 0.001 <= median_seconds(lambda: time.sleep(0.001), 0.01) < 1


def maps():
    return torch.full((2, 3), 5.), torch.arange(4.)


def test_a_replay_that_fills_the_outputs_is_accepted():
    outputs = maps()

    def replay():
        for output, value in zip(outputs, maps()):
            output.copy_(value)
    check_replay(replay, outputs, maps())


@pytest.mark.parametrize('filled', [None, math.inf, 5.5])
def test_a_replay_that_gives_something_else_is_refused(filled):
    outputs = maps()
    with pytest.raises(NotMeasured, match='a replay does not give'):
        check_replay(lambda: filled and outputs[0].fill_(filled), outputs, maps())
