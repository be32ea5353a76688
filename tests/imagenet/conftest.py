"""Files of the authors' layout, made with their own package and random weights."""
import argparse
import warnings
from collections import OrderedDict

import pytest
import torch

from tests.conftest import REPO, stir

CONFIGS = sorted((REPO / 'configs/mmpretrain').glob('fastervit-*_in1k.py'))
SHALLOW = (1, 1, 2, 1)


def their_model(arch: str, **settings) -> torch.nn.Module:
    """The authors' classifier, stirred; keyword arguments are those of their functions."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        import fastervit
        name = arch.replace('-', '_') if '21k' in arch else f'{arch}_224'
        torch.manual_seed(1)
        model = fastervit.create_model(f'faster_vit_{name}', pretrained=False, **settings)
    stir(model)
    return model.eval()


def save_as_published(model: torch.nn.Module, path) -> str:
    """A training checkpoint: names of data parallel training, and a Namespace beside the tensors.

    One forward pass fills the position values that their modules keep, as in a training.
    """
    torch.save(dict(
        epoch=299, version=2, args=argparse.Namespace(lr=5e-3, mean=(0.485, )),
        state_dict=OrderedDict((f'module.{k}', v) for k, v in model.state_dict().items())), path)
    return str(path)


@pytest.fixture(scope='session')
def published(session_folder, tmp_path_factory):
    """FasterViT-0, whole, in the folder where ``fastervit://0-224-1k`` is looked for."""
    home = tmp_path_factory.mktemp('torch_home')
    folder = home / 'hub/checkpoints'
    folder.mkdir(parents=True)
    model = their_model('0')
    save_as_published(model, folder / 'fastervit_0_224_1k.pth.tar')
    return home, folder / 'fastervit_0_224_1k.pth.tar', model
