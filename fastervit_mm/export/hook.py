"""Testing a network by its exported file."""
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..models import unwrapped
from .running import ExportedFile


@HOOKS.register_module()
class ExportedHook(Hook):
    """Let an exported file compute, in a test, what it holds of the network.

    Pre-processing, the heads that are not in the file, post-processing and the metrics stay
    OpenMMLab's own.

    Args:
        path: Of the ``.onnx`` or ``.pt2`` file; logits, not labels.
    """

    def __init__(self, path: str):
        self.file = ExportedFile(path)
        if self.file.outputs == ['labels']:
            raise ValueError(f'path={str(path)!r}: holds labels, and an evaluation resizes logits; '
                             'export without labels')

    def before_test(self, runner: Runner) -> None:
        model, part = unwrapped(runner.model), self.file.facts['part']
        if part == 'whole':
            model.encode_decode = lambda inputs, batch_img_metas: self.file(inputs)[0]
        elif part == 'features':
            model.extract_feat = lambda inputs, *args, **kwargs: self.file(inputs)
        else:
            model.backbone.forward = self.file
