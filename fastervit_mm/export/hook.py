"""Testing a network with its exported file."""
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..models import unwrapped
from .running import ExportedFile


@HOOKS.register_module()
class ExportedHook(Hook):
    """Test with an exported file in place of its part.

    Pre-processing, the heads that are not in the file, post-processing and the metrics stay
    OpenMMLab's own.

    Args:
        path: The ``.onnx`` or ``.pt2`` file, with logits, not labels.

    Raises:
        ExportError: For a file that cannot be read.
        ValueError: For a file that holds labels.
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
