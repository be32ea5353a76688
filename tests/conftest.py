"""What several tests share."""
import functools
import gc
import importlib.util
import os
import shutil
import warnings
from pathlib import Path
from types import ModuleType

# Tests run side by side (pytest-xdist) share the processors: more threads than its share, also of
# those that a shell has set, would have each worker, and each run that it starts, wait for the
# others: ten times as long. Before torch counts them.
if (workers := int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', 1))) > 1:
    share = max(1, os.cpu_count() // workers)
    os.environ['OMP_NUM_THREADS'] = str(min(share, int(os.environ.get('OMP_NUM_THREADS', share))))

import pytest  # noqa: E402
import torch  # noqa: E402
from mmengine.config import config, utils  # noqa: E402

from tests import samples  # noqa: E402

# For each base in mmdet or mmseg, mmengine reads all of their metafiles, and what is installed:
# most of the second that a config of UperNet takes, and tests read hundreds.
for module, name in ((utils, 'load'), (config, 'is_installed')):
    setattr(module, name, functools.cache(getattr(module, name)))

REPO = Path(__file__).resolve().parents[1]

os.environ.setdefault('MPLBACKEND', 'Agg')


def pytest_report_header():
    return f'samples: {samples.describe()}'


def pytest_collection_finish():
    """Freeze imported objects: datasets collect garbage, which would take half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def authors():
    """The authors' package, as an oracle: ``authors('2')`` is their ImageNet model.

    Other settings as their functions take them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        import fastervit

    def create(arch: str, **settings):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            model = fastervit.create_model(f'faster_vit_{arch}_224', pretrained=False, **settings)
        stir(model)
        return model.eval()

    return create


def stir(model: torch.nn.Module) -> None:
    """Give norms and scales distinct values, as training does.

    As they begin, running statistics are 0 and 1, biases 0 and layer scales 1e-5.
    """
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if 'gamma' in name or ('norm' in name and name.endswith('weight')):
                parameter.uniform_(0.5, 1.5, generator=generator)
            elif name.endswith('bias'):
                parameter.normal_(0, 0.1, generator=generator)


@pytest.fixture(scope='session')
def tiny_coco(session_folder) -> Path:
    return samples.get('tiny_coco', session_folder)


@pytest.fixture(scope='session')
def tiny_ade20k(session_folder) -> Path:
    return samples.get('ade20k_tiny', session_folder)


@pytest.fixture(scope='session')
def session_folder(tmp_path_factory) -> Path:
    """One folder for all workers of pytest-xdist."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if 'PYTEST_XDIST_WORKER' in os.environ else folder


def needs_torch(major: int, minor: int, what: str) -> pytest.MarkDecorator:
    """Skip a test with an older torch, as ``make matrix`` has."""
    found = tuple(int(number) for number in torch.__version__.split('.')[:2])
    return pytest.mark.skipif(found < (major, minor), reason=f'{what}: torch {major}.{minor}')


needs_compiler = pytest.mark.skipif(
    os.environ.get('CI') != 'true' and not any(map(shutil.which, ('c++', 'g++', 'clang++'))),
    reason='torch.compile on a CPU, and a build of mmcv, need a C++ compiler')


def load_program(path: str) -> ModuleType:
    """A program of this repository as a module of its own; ``path`` from its root."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPO / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_make_env() -> ModuleType:
    return load_program('tools/make_env.py')


TINY = dict(embed_dim=16, stem_channels=8, depths=(1, 2, 2, 1), num_heads=(1, 1, 2, 4),
            drop_path_rate=0.0)

# A classifier of mmpretrain, for tools that take any task.
CLASSIFIER = f"""
_base_ = ['mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py']
default_scope = 'mmpretrain'
custom_imports = dict(imports=['fastervit_mm'])
model = dict(
    type='ImageClassifier', backbone=dict(type='FasterViT', arch={TINY!r}, out_indices=(3,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=7, in_channels=128, topk=(1,),
              loss=dict(type='CrossEntropyLoss')))
"""


@pytest.fixture
def tiny_arch() -> dict:
    """A network that runs in milliseconds, with every part of the large ones."""
    return dict(TINY, layer_scale=0.5, propagate_carriers=True)
