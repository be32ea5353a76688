"""Report of a step, as a file and a table."""
import json
import os
import signal
import subprocess
import time
import traceback
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Optional

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.reports import origin

STATES = ('pass', 'measured', 'skipped', 'left out', 'fail', 'error')


class OutOfTime(BaseException):
    """End of a step's time, beyond ``except Exception``."""


class Report:
    """Rows of one step.

    A row has a part, a case, and a value with its unit. Its state is ``pass`` or ``fail`` for a
    value with a limit, else ``measured``; ``skipped`` if this machine cannot do it, ``left out`` if
    the time did not suffice, ``error`` if it raised one.

    Args:
        step: Its number and name.
        out: Folder of ``<step>.json`` and ``<step>.txt``.
        budget: Seconds for the whole step.
        device: Where networks run.
        rehearse: Whether sizes are those of a rehearsal.
    """

    def __init__(self, step: str, out: Path, budget: float, device: torch.device, rehearse: bool):
        self.step, self.out, self.device, self.rehearse = step, out, device, rehearse
        self.budget, self.started = budget, time.monotonic()
        self.head = dict(origin(), step=step, rehearsal=rehearse, budget_seconds=budget,
                         commit=_first_line('git', 'rev-parse', 'HEAD'))
        self.head['machine'].update(cudnn=torch.backends.cudnn.version(), driver=_first_line(
            'nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader'))
        self.rows: List[Dict[str, object]] = []
        self.extra: Dict[str, object] = {}
        out.mkdir(parents=True, exist_ok=True)
        self.save()

    @property
    def cuda(self) -> bool:
        """Whether there is a GPU."""
        return self.device.type == 'cuda'

    @property
    def left(self) -> float:
        """Remaining seconds."""
        return self.budget - (time.monotonic() - self.started)

    def add(self, part: str, case: str, value: Optional[float] = None, unit: str = '',
            state: str = 'measured', limit: str = '', note: str = '', **detail) -> dict:
        """Add a row, and save.

        Args:
            part, case: What was measured.
            value, unit: The result.
            state: One of :data:`STATES`.
            limit: Limit of the value.
            note: Remark for the reader.
            **detail: Further content for the file, not the table.
        """
        row = dict(part=part, case=case, value=value, unit=unit, limit=limit, state=state,
                   note=note, **({'detail': detail} if detail else {}))
        self.rows.append(row)
        print(f'{time.monotonic() - self.started:6.1f} s  {state}: {part}, {case}: '
              f'{_short(value)} {unit} {note}', flush=True)
        self.save()
        return row

    def check(self, part: str, case: str, value: float, at_most: Optional[float] = None,
              at_least: Optional[float] = None, **others) -> dict:
        """Add a row whose value has a limit; NaN fails."""
        kept = value <= at_most if at_most is not None else value >= at_least
        limit = f'<= {at_most:g}' if at_most is not None else f'>= {at_least:g}'
        return self.add(part, case, value, state='pass' if kept else 'fail', limit=limit, **others)

    def skip(self, part: str, case: str, why: str = 'needs CUDA') -> None:
        """Add a row for what this machine cannot do."""
        self.add(part, case, state='skipped', note=why)

    def run(self, part: str, case: str, function: Callable, *args, needs: float = 0, **kwargs):
        """Call a function that adds rows; errors become rows too.

        Args:
            part, case: Names for the row if it fails or is left out.
            function: Called with ``args`` and ``kwargs``.
            needs: Least seconds that it takes; with fewer remaining it is left out.

        Returns:
            The function's result, or None.
        """
        if self.left <= needs:
            self.add(part, case, state='left out', note=f'{self.left:.0f} s were left')
            return None
        started, first = time.monotonic(), len(self.rows)
        try:
            with self._alarm():
                return function(*args, **kwargs)
        except OutOfTime:
            self.add(part, case, state='left out',
                     note=f'stopped after {time.monotonic() - started:.0f} s')
        except Exception as error:  # noqa: BLE001  one case's error must not end the others
            self.add(part, case, state='error', note=_first(error),
                     traceback=traceback.format_exc()[-3000:])
        finally:
            for row in self.rows[first:first + 1]:
                row['seconds'] = round(time.monotonic() - started, 1)
        return None

    @contextmanager
    def _alarm(self) -> Iterator[None]:
        def ring(*_):
            raise OutOfTime

        before = signal.signal(signal.SIGALRM, ring)
        # Repeated every 5 s, since C code may swallow an exception in a callback.
        signal.setitimer(signal.ITIMER_REAL, max(self.left, 0.1), 5)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    @property
    def counts(self) -> Dict[str, int]:
        """Rows by state."""
        counted = Counter(row['state'] for row in self.rows)
        return {state: counted[state] for state in STATES if counted[state]}

    @property
    def failed(self) -> bool:
        """Whether a row failed or has an error."""
        return any(row['state'] in ('fail', 'error') for row in self.rows)

    def content(self) -> Dict[str, object]:
        """Content of the file."""
        return dict(self.head, seconds=round(time.monotonic() - self.started, 1),
                    counts=self.counts, passed=bool(self.rows) and not self.failed,
                    rows=self.rows, **self.extra)

    def save(self) -> None:
        """Write the JSON, so that a killed step's rows survive."""
        target = self.out / f'{self.step}.json'
        draft = target.with_suffix('.tmp')
        draft.write_text(json.dumps(self.content(), indent=1))
        os.replace(draft, target)

    def finish(self) -> None:
        """Save, write the table, and print failures last."""
        self.save()
        with (self.out / f'{self.step}.txt').open('w') as file:
            self.show(Console(file=file, width=160), self.rows)
        self.show(Console(width=120), [row for row in self.rows if row['state'] in (
            'left out', 'fail', 'error')])

    def show(self, console: Console, rows: List[Dict[str, object]]) -> None:
        """Print a table of rows and counts of states."""
        where = self.head['machine']
        table = Table(title=f'{self.step}{" (rehearsal)" if self.rehearse else ""}: '
                      f'{where["gpu"] or where["cpu"]}, torch {where["torch"]}, '
                      f'{self.head["date"]}', title_justify='left')
        for name in ('part', 'case', 'value', 'unit', 'limit', 'state', 'note'):
            table.add_column(name, justify='right' if name == 'value' else 'left',
                             overflow='fold')
        for row in rows:
            table.add_row(*(_short(row[name]) for name in (
                'part', 'case', 'value', 'unit', 'limit', 'state', 'note')))
        if rows:
            console.print(table, markup=False, highlight=False)
        console.print(f'{self.step}: ' + ', '.join(f'{n} {s}' for s, n in self.counts.items())
                      + f'; {time.monotonic() - self.started:.0f} s', highlight=False)


def _first_line(*command: str) -> Optional[str]:
    """First line of a program's output; None without the program."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20,
                              cwd=Path(__file__).parent)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.split('\n')[0].strip() or None


def _first(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'.split('\n')[0][:300]


def _short(value: object) -> str:
    return '' if value is None else f'{value:.4g}' if isinstance(value, float) else str(value)
