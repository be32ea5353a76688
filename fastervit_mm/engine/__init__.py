"""What training and testing need and mmengine lacks; importing this registers the hooks."""
from .hooks import CompleteCheckpointHook, CurvesHook, DeployHook, OverlaysHook

__all__ = ['CompleteCheckpointHook', 'CurvesHook', 'DeployHook', 'OverlaysHook']
