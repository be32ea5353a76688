"""What training and testing need and mmengine lacks; importing this registers hooks and logs."""
from .estimate import EstimateHook
from .hooks import (
    BoxesHook,
    CompleteCheckpointHook,
    CurvesHook,
    DeployHook,
    OverlaysHook,
    RegroupHook,
)
from .logs import MemoryLogProcessor, OptionalTensorboardVisBackend
from .optimizers import MergedOptimWrapperConstructor

__all__ = ['BoxesHook', 'CompleteCheckpointHook', 'CurvesHook', 'DeployHook', 'EstimateHook',
           'MemoryLogProcessor', 'MergedOptimWrapperConstructor', 'OptionalTensorboardVisBackend',
           'OverlaysHook', 'RegroupHook']
