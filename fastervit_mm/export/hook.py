"""Testing a network with its exported file."""
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from ..models import unwrapped
from .pictures import preprocessing
from .predicting import predict, raw
from .running import ExportedFile


@HOOKS.register_module()
class ExportedHook(Hook):
    """Test with an exported file in place of its part.

    What is not in the file stays OpenMMLab's own: pre-processing, heads, pasting of masks,
    post-processing and the metrics.

    Args:
        path: The ``.onnx`` or ``.pt2`` file; of a segmentor, with logits, not labels.

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
        model, facts = unwrapped(runner.model), self.file.facts
        if facts['part'] == 'backbone':
            model.backbone.forward = self.file
        elif facts['part'] == 'features':
            model.extract_feat = lambda inputs, *args, **kwargs: self.file(inputs)
        elif facts['task'] == 'segmentation':
            # Here, not around it all: a config may have windows slide over an image.
            model.encode_decode = lambda inputs, batch_img_metas: self.file(
                _restored(inputs, model, facts['input']))[0]
        else:
            model.test_step = lambda data: predict(self.file, model, data)


def _restored(images: Tensor, model: nn.Module, kind: str) -> Tensor:
    """Images before they were normalised, if a file of that input normalises them."""
    if kind == 'normalized':
        return images
    settings = preprocessing(model)
    if settings.mean:
        mean, std = (images.new_tensor(v)[:, None, None] for v in (settings.mean, settings.std))
        images = images * std + mean
    if settings.rgb and images.shape[1] == 3:
        images = images.flip(1)
    return raw(images, kind)
