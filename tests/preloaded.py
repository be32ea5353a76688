"""What the server of tests.running imports: what every tool imports, and mmdet and mmseg."""
from importlib import import_module

# This package first: see fastervit_mm/compat.py.
for name in ('fastervit_mm.engine.launch', 'mmdet.apis', 'mmseg.apis'):
    import_module(name)
