"""What training and testing need and mmengine lacks; importing this registers hooks and logs."""
from .hooks import CompleteCheckpointHook, CurvesHook, DeployHook, OverlaysHook
from .logs import MemoryLogProcessor, OptionalTensorboardVisBackend

__all__ = ['CompleteCheckpointHook', 'CurvesHook', 'DeployHook', 'MemoryLogProcessor',
           'OptionalTensorboardVisBackend', 'OverlaysHook']
