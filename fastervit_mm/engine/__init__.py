"""Hooks, loops and logs beyond mmengine's, registered on import."""
from .checkpoints import WholeCheckpointHook
from .estimate import EstimateHook
from .fine_tuning import ResumableEarlyStoppingHook, UnfreezeHook
from .hooks import (
    BoxesHook,
    CompleteCheckpointHook,
    CurvesHook,
    DeployHook,
    LabelMapsHook,
    OverlaysHook,
    PublishedFiguresHook,
    PublishedNamesHook,
)
from .logs import MemoryLogProcessor, OptionalTensorboardVisBackend
from .mesa import MESAHook
from .notices import FiniteLossHook, NoticeHook
from .optimizers import MergedOptimWrapperConstructor
from .plain_values import PlainValuesHook
from .resuming import MissedValidationHook, ResumableEpochLoop, ResumableIterLoop
from .sharding import ShardedRunner
from .threads import ThreadsHook

__all__ = ['BoxesHook', 'CompleteCheckpointHook', 'CurvesHook', 'DeployHook', 'EstimateHook',
           'FiniteLossHook', 'LabelMapsHook', 'MESAHook', 'MemoryLogProcessor',
           'MergedOptimWrapperConstructor', 'MissedValidationHook', 'NoticeHook',
           'OptionalTensorboardVisBackend', 'OverlaysHook', 'PlainValuesHook',
           'PublishedFiguresHook', 'PublishedNamesHook', 'ResumableEarlyStoppingHook',
           'ResumableEpochLoop', 'ResumableIterLoop', 'ShardedRunner', 'ThreadsHook',
           'UnfreezeHook', 'WholeCheckpointHook']
