"""mmcv's operators where mmcv has no compiled ones (mmcv-lite)."""
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any, Optional

_NAME = 'mmcv._ext'


class _Finder(MetaPathFinder):
    """Finds ``mmcv._ext`` where nothing else does; it is asked last."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:
        return spec_from_file_location(_NAME, Path(__file__).with_name('ext.py')) if (
            name == _NAME) else None


def provide_operators() -> None:
    """Serve mmcv's operators by torchvision's wherever no compiled mmcv is installed.

    A compiled mmcv is always used where it is: Python finds it first.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
