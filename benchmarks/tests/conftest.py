"""The fixtures of the package's tests."""
from tests.conftest import (  # noqa: F401
    _seeded,
    authors,
    session_folder,
    tiny_ade20k,
    tiny_arch,
    tiny_coco,
)
