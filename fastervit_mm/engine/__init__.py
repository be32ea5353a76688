"""What training and testing need and mmengine lacks; importing this registers hooks and logs."""
from .estimate import EstimateHook
from .hooks import CompleteCheckpointHook, CurvesHook, DeployHook, OverlaysHook
from .logs import MemoryLogProcessor, OptionalTensorboardVisBackend

__all__ = ['CompleteCheckpointHook', 'CurvesHook', 'DeployHook', 'EstimateHook',
           'MemoryLogProcessor', 'OptionalTensorboardVisBackend', 'OverlaysHook']
