"""Print the wheels, of those given, whose distribution this Python does not have."""
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

for wheel in sys.argv[1:]:
    try:
        version(Path(wheel).name.split('-')[0])
    except PackageNotFoundError:
        print(wheel)
