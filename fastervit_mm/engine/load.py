"""Other programs on the processors that a run is about to use."""
import os
import time
from pathlib import Path
from typing import Optional

import torch

_STAT = Path('/proc/stat')


def busy_processors(seconds: float = 0.5) -> Optional[float]:
    """How many processors other programs keep busy, while this one waits.

    Args:
        seconds: How long to look. Default 0.5.

    Returns:
        Such as 1.0 for one program with one thread; None on a system without ``/proc/stat``.
    """
    if not _STAT.is_file():
        return None
    before, began = _busy_seconds(), time.monotonic()
    time.sleep(seconds)
    return (_busy_seconds() - before) / (time.monotonic() - began)


def _busy_seconds() -> float:
    """Seconds that all processors together have worked since the system began."""
    user, nice, system = map(int, _STAT.read_text().split('\n', 1)[0].split()[1:4])
    return (user + nice + system) / os.sysconf('SC_CLK_TCK')


def advice_for_a_loaded_machine(busy: Optional[float], threads: int, processors: int
                                ) -> Optional[str]:
    """What to do where other programs leave fewer processors than a run has threads; else None.

    PyTorch's threads wait for each other by spinning. Where one of them has to share its processor
    with another program, all wait for it, and a training step can take ten times as long.

    Args:
        busy: From :func:`busy_processors`.
        threads: Of this process.
        processors: That this process may use.
    """
    if busy is None or threads < 2 or busy + threads < processors + 0.4:
        return None
    free = max(1, min(threads - 1, round(processors - busy)))
    return (f'Other programs use {busy:.1f} of the {processors} processors, and this run has '
            f'{threads} threads, which wait for each other: it may be several times slower. If '
            f'those programs go on, stop and start again with OMP_NUM_THREADS={free}')


def warn_of_a_loaded_machine(logger) -> None:
    """Log that advice, for a run on a CPU."""
    own = hasattr(os, 'sched_getaffinity')  # not on every system
    processors = len(os.sched_getaffinity(0)) if own else os.cpu_count()
    advice = advice_for_a_loaded_machine(busy_processors(), torch.get_num_threads(), processors)
    if advice is not None:
        logger.warning(advice)
