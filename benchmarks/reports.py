"""Reports of figures: origin and files."""
import json
import os
import platform
import shlex
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Dict, Optional

import torch

_MATRIX_UNITS = ('amx_int8', 'amx_bf16', 'amx_fp16', 'avx512_bf16', 'avx512_fp16', 'avx512_vnni',
                 'avx_vnni')


def origin() -> Dict[str, object]:
    """Command, machine and date of figures."""
    program = getattr(sys.modules['__main__'], '__spec__', None)
    words = ['-m', program.name.removesuffix('.__main__')] if program else sys.argv[:1]
    return dict(command=shlex.join(['python', *words, *sys.argv[1:]]), machine=machine(),
                date=datetime.now(timezone.utc).isoformat(timespec='seconds'))


def save(report: Dict[str, object], target: Path) -> None:
    """Write a report as JSON."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=1) + '\n')


def machine() -> Dict[str, object]:
    """The machine and the versions of software."""
    cpu, kind, units = platform.processor(), None, []
    info = Path('/proc/cpuinfo')
    if info.is_file():
        about = dict(reversed([[word.strip() for word in line.split(':', 1)]
                               for line in info.read_text().splitlines() if ':' in line]))
        cpu = about.get('model name', cpu)
        kind = f'family {about.get("cpu family")} model {about.get("model")}'
        flags = about.get('flags', '').split()
        units = [unit for unit in _MATRIX_UNITS if unit in flags]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return dict(cpu=cpu, kind=kind, matrix_units=units, cores=len(os.sched_getaffinity(0)),
                threads=torch.get_num_threads(), gpu=gpu, torch=torch.__version__,
                cuda=torch.version.cuda, python=platform.python_version(),
                system=platform.platform(), capability=torch.backends.cpu.get_cpu_capability(),
                versions={name: _version(name) for name in
                          ('fastervit_mm', 'fastervit', 'timm', 'mmengine', 'mmdet', 'triton')})


def _version(name: str) -> Optional[str]:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
