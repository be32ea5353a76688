"""Missing or broken packages are reported in one line with the command that helps."""
import subprocess
import sys
import sysconfig
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.conftest import REPO

SITE = Path(sysconfig.get_path('purelib'))
REINSTALL = 'pip install --force-reinstall --no-deps mmcv-lite==2.1.0'


def site_packages(target, *absent):
    """A folder of links to the installed packages, except for some patterns."""
    link(SITE, target, {'*.pth', *absent})
    return target


def link(folder, target, absent):
    target.mkdir()
    for path in folder.iterdir():
        inside = {name.partition('/')[2] for name in absent if name.startswith(f'{path.name}/')}
        if inside:
            link(path, target / path.name, inside)
        elif not any(path.match(name) for name in absent):
            (target / path.name).symlink_to(path)


def python(site, *arguments):
    """Run Python with only those packages; return its last line."""
    done = subprocess.run(
        [sys.executable, '-S', '-W', 'ignore', *arguments], capture_output=True, text=True,
        cwd=REPO, env=dict(PATH='/usr/bin:/bin', PYTHONPATH=f'{site}:{REPO}', HOME=str(site)))
    assert done.returncode, done.stdout
    return done.stderr.strip()


def train(site):
    found = python(site, 'tools/train.py', 'configs/mmdet/cascade_fvit_shapes.py',
                   '--work-dir', str(site / 'run'))
    assert found.startswith('train: ') and '\n' not in found, found
    return found


@pytest.mark.parametrize('name, module', [
    ('mmengine', ''), ('mmcv', '.apis'), ('mmdet', '.dino')])
def test_a_module_names_the_library_that_it_needs(tmp_path, name, module):
    site = site_packages(tmp_path / 'site', name)
    assert python(site, '-c', f'import fastervit_mm{module}').splitlines()[-1].endswith(
        f"needs {name}, which is not installed. In a clone of fastervit_mm: pip install "
        "'.[openmmlab]', or '.[onedl]' for OneDL's forks")
    if name == 'mmdet':  # others may look for it, and do without
        assert python(site, '-c', 'import fastervit_mm; from importlib.util import find_spec as f; '
                      'raise SystemExit(f("mmdet") or "none")') == 'none'


def test_the_backbone_needs_torch_mmengine_and_timm_alone(tmp_path):
    site = site_packages(tmp_path / 'site', *(f'{name}*' for name in (
        'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'pycocotools', 'matplotlib', 'tifffile')))
    code = ('import torch, fastervit_mm.backbone as b; '
            'raise SystemExit(str(len(b.FasterViT("0")(torch.rand(1, 3, 64, 64)))))')
    assert python(site, '-c', code) == '4'


def test_an_mmcv_of_which_only_the_folder_is_left(tmp_path):
    found = train(site_packages(tmp_path / 'site', 'mmcv/__init__.py'))
    assert 'site/mmcv: an incomplete mmcv' in found and found.endswith(REINSTALL)


def test_compiled_operators_that_do_not_load_are_named(tmp_path):
    site = site_packages(tmp_path / 'site', 'mmcv/_ext*')
    (site / f'mmcv/_ext{EXTENSION_SUFFIXES[0]}').write_text('of another torch')
    found = train(site)
    assert f"do not load beside torch {version('torch')} (" in found and REINSTALL in found


def test_a_torchvision_whose_operators_do_not_load(tmp_path):
    """As of a CUDA build beside a CPU build of torch."""
    found = train(site_packages(tmp_path / 'site', 'mmcv/_ext*', 'torchvision/_C*'))
    assert f'torchvision {version("torchvision")} do not load' in found
    assert 'pip install --upgrade --force-reinstall torch torchvision' in found


def test_an_mmcv_version_that_mmdet_refuses(tmp_path):
    site = site_packages(tmp_path / 'site', 'mmcv/version.py', 'mmcv/__pycache__')
    (site / 'mmcv/version.py').write_text((SITE / 'mmcv/version.py').read_text().replace(
        "= '2.1.0'", "= '2.2.0'"))
    found = train(site)
    assert 'MMCV==2.2.0 is used but incompatible' in found and "pip install '.[openmmlab]'" in found
