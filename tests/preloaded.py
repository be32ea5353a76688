"""Imports of the server of tests.running: every tool's, mmdet and mmseg.

It reads a config too, with its bases in both. Forks do not search all this for garbage.
"""
import gc
from importlib import import_module

# This package first: see fastervit_mm/compat.py.
for name in ('fastervit_mm.engine.launch', 'mmdet.apis', 'mmseg.apis'):
    import_module(name)

from mmengine.config import Config  # noqa: E402

from tests.conftest import REPO  # noqa: E402

for name in ('mmdet/cascade_fvit', 'mmseg/upernet_fvit'):
    Config.fromfile(str(REPO / f'configs/{name}.py'), import_custom_modules=False)

gc.collect()
gc.freeze()
