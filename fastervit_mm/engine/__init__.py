"""What training and testing need and mmengine lacks; importing this registers the hooks."""
from .hooks import CompleteCheckpointHook, CurvesHook, OverlaysHook

__all__ = ['CompleteCheckpointHook', 'CurvesHook', 'OverlaysHook']
