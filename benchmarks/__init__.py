"""Laboratory: demos, studies and measurements, not in the wheel.

Programs run from the clone's root, as ``python -m benchmarks.speed``.
"""
import fastervit_mm  # noqa: F401  before mmdet and mmseg: mmcv's operators
