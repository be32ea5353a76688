"""Fuzz for some minutes and print a summary: ``make fuzz``.

    python -m tests.fuzz.campaign --minutes 10 [--only configs] [--seed 1]
"""
import argparse
import json
import logging
import os
import platform
import tempfile
import time
import warnings
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.targets import MEMORY, NAMES, resident, target

ROUND = 400  # inputs that hypothesis draws before it begins anew, with the next seed


def run(name: str, seconds: float, first: int = 0, round_: int = ROUND) -> dict:
    """Fuzz one target.

    Args:
        name: One of ``NAMES``.
        seconds: How long.
        first: Seed of the first round.
        round_: Inputs of a round.

    Returns:
        The target, inputs, bytes, seconds and most additional memory.

    Raises:
        AssertionError, Exception: Of the smallest input that fails, with it in the notes.
    """
    tried = dict(target=name, inputs=0, bytes=0)
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            one, start, before = target(name, Path(folder)), time.monotonic(), None

            def check(value):
                nonlocal before
                if tried['inputs'] and time.monotonic() - start > seconds:
                    return
                tried['inputs'] += 1
                tried['bytes'] += one.size(value)
                one.check(value)
                before = before or resident()
                assert resident() - before < MEMORY, 'memory has grown'

            while not tried['inputs'] or time.monotonic() - start < seconds:
                chosen = settings(max_examples=round_, deadline=None, database=None,
                                  suppress_health_check=list(HealthCheck), print_blob=True,
                                  phases=(Phase.generate, Phase.shrink))
                seed(first)(chosen(given(one.inputs)(check)))()
                first += 1
        finally:
            os.chdir(here)
    return dict(tried, seconds=round(time.monotonic() - start), seeds=first,
                memory_mib=round((resident() - (before or 0)) / 2**20))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, default=10, help='for each target (default: 10)')
    parser.add_argument('--only', choices=NAMES, help='one target (default: all)')
    parser.add_argument('--seed', type=int, default=0, help='of the first round (default: 0)')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    logging.disable(logging.CRITICAL)
    print(f'{time.strftime("%Y-%m-%d")}, {platform.machine()}, {os.cpu_count()} processors, Python '
          f'{platform.python_version()}')
    for name in [args.only] if args.only else NAMES:
        print(json.dumps(run(name, 60 * args.minutes, args.seed)), flush=True)


if __name__ == '__main__':
    main()
