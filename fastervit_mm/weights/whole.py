"""Complete loading of a whole model, with renamed tensors."""
from typing import Any, Mapping

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from ..backbone import StagedBackbone
from ..backbone.names import to_current
from .errors import CheckpointError, check_finite
from .finding import translate, translate_whole, whole_place
from .loading import NO_FASTERVIT, check_windows, describe
from .reading import entries, where_from


def rename_published(content: Mapping[str, Any], model: nn.Module, checkpoint: str
                     ) -> Mapping[str, Any]:
    """Rename a file's tensors to a whole model's names.

    So a classifier (``configs/mmpretrain``) loads the authors' files completely, head included, and
    prefixes of other trainers and compilers do not matter.

    Args:
        content: Result of :func:`~fastervit_mm.weights.read_checkpoint`.
        model: The model that will load them, with or without wrappers.
        checkpoint: The file's name, for the message.

    Returns:
        A new dict, or ``content`` itself if nothing was renamed.

    Raises:
        CheckpointError: For a file trained with other windows than the model's
            (:meth:`~fastervit_mm.FasterViT.wrong_windows`); after renaming this could not be told.
    """
    entry, found = next(iter(entries(content).items()), ('', {}))
    for backbone in (m for m in model.modules() if isinstance(m, StagedBackbone)):
        check_windows(backbone, found, checkpoint)
    place = whole_place(found, unwrapped(model).state_dict(), checkpoint)
    tensors = translate_whole(found, place)
    if said := where_from(content, found, entry, place):
        print_log(f'{checkpoint}: loaded{said}', logger='current')
    if entry in ('state_dict', '') and list(tensors) == list(found):
        return content
    return {**content, 'state_dict': tensors}


def check_complete(model: nn.Module, content: Mapping[str, Any], checkpoint: str) -> None:
    """Raise an error unless a checkpoint fills a model.

    mmengine loads with ``strict=False``: with a checkpoint of another variant it only warns, and
    goes on with a network that is half random.

    Args:
        model: The model, with or without wrappers (DDP, test-time augmentation).
        content: Content of the file.
        checkpoint: The file's name, for the message.

    Raises:
        CheckpointError: If tensors are missing, have another shape, or if parameters or running
            statistics are not finite.
    """
    own = unwrapped(model).state_dict()
    found = content.get('state_dict', content)
    tensors = {key: value for key, value in found.items() if isinstance(value, Tensor)}
    for name, module in unwrapped(model).named_modules():
        if isinstance(module, StagedBackbone):
            to_current(tensors, f'{name}.' if name else '')
    missing = [k for k in own if k not in tensors and not k.endswith('num_batches_tracked')]
    # FasterViT-6's file, with more blocks, would fill all of FasterViT-5.
    blocks = [k for k in tensors if k not in own and k.startswith('backbone.stages.')]
    mismatched = [f'{k} ({tuple(tensors[k].shape)} in the file, {tuple(own[k].shape)} in the '
                  'model)' for k in own if k in tensors and tensors[k].shape != own[k].shape]
    unexpected = [k for k in tensors if k not in own]
    if missing or mismatched or blocks:
        looks_like = describe(translate(tensors)) if tensors else NO_FASTERVIT
        raise CheckpointError(
            f'checkpoint={checkpoint!r}: does not fit the model of this config: '
            f'{len(missing)} of {len(own)} tensors are missing {missing[:3]}, '
            f'{len(mismatched)} have another shape {mismatched[:3]}, {len(unexpected)} of the '
            f'file have no place {unexpected[:3]}. Give the config that the checkpoint was '
            'trained with; it is in the same work directory' + (
                '' if looks_like == NO_FASTERVIT else f'. The file looks like {looks_like}'))
    # Other buffers may be infinite by design.
    learned = dict(unwrapped(model).named_parameters())
    check_finite({k: tensors[k] for k in own if k in learned or '.running_' in k}, checkpoint)


def unwrapped(model: nn.Module) -> nn.Module:
    """Model inside wrappers for distributed training or test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
