"""What training and testing need and mmengine lacks; importing this registers hooks and logs."""
from .estimate import EstimateHook
from .hooks import CompleteCheckpointHook, CurvesHook, DeployHook, OverlaysHook, RegroupHook
from .logs import MemoryLogProcessor, OptionalTensorboardVisBackend
from .optimizers import MergedOptimWrapperConstructor

__all__ = ['CompleteCheckpointHook', 'CurvesHook', 'DeployHook', 'EstimateHook',
           'MemoryLogProcessor', 'MergedOptimWrapperConstructor', 'OptionalTensorboardVisBackend',
           'OverlaysHook', 'RegroupHook']
