"""A run on a CPU says so if other programs use its processors."""
import os
import subprocess
import sys

import pytest

from fastervit_mm.engine.load import advice_for_a_loaded_machine, busy_processors


def test_busy_processors_are_counted():
    """Other tests run beside this one, so only what one more program adds is certain."""
    spinning = [subprocess.Popen([sys.executable, '-c', 'while True: pass'])
                for _ in range(os.cpu_count())]
    try:
        busy = busy_processors(1.0)
    finally:
        for process in spinning:
            process.kill()
            process.wait()
    assert 0.8 * os.cpu_count() < busy < 1.1 * os.cpu_count()


@pytest.mark.parametrize('busy, threads, processors, advised', [
    (0.1, 2, 2, None), (0.0, 8, 8, None), (1.0, 1, 2, None), (4.0, 4, 8, None), (None, 2, 2, None),
    (1.0, 2, 2, 1), (2.0, 2, 2, 1), (3.0, 8, 8, 5), (0.6, 8, 8, 7)])
def test_advice_is_given_where_threads_would_wait(busy, threads, processors, advised):
    advice = advice_for_a_loaded_machine(busy, threads, processors)
    assert (advice is None) == (advised is None)
    if advised is not None:
        assert advice.endswith(f'OMP_NUM_THREADS={advised}') and f'{threads} threads' in advice
