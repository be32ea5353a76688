"""Print wheels with modules that this Python lacks.

By modules, not by names: mmcv-lite does not stand in for a compiled mmcv, and setuptools is needed
for pkg_resources, which new versions lack.
"""
import sys
from importlib.util import find_spec
from zipfile import ZipFile

for wheel in sys.argv[1:]:
    with ZipFile(wheel) as file:
        names = {name.split('/')[0].removesuffix('.py') for name in file.namelist()}
    if not all(map(find_spec, filter(str.isidentifier, names))):
        print(wheel)
