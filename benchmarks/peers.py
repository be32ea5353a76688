"""Run tests/peers, and other libraries' own tests on FasterViT.

The tests of timm (models), segmentation_models_pytorch (encoders) and transformers (timm backbone)
run with ``fastervit_0`` in place of their networks; those that ask the Hub are left out. They come
from source packages; where one lacks them, the program says what to clone. None of them is kept in
this repository. Figures: docs/peers.md.
"""
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Dict, NamedTuple

from benchmarks.reports import origin, save
from tools.make_matrix import counted, first_line

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / 'work_dirs/peers'
REPORT = ROOT / 'benchmarks/peers.json'
# Beside the environment: where transformers 5 is installed, mmpretrain 1.2.0 cannot be imported.
PACKAGES = FOLDER / 'packages'
NEEDED = ('transformers', 'tokenizers', 'parameterized', 'gitpython', 'gitdb', 'smmap')

ENCODER = '''
from tests.encoders import base


class TestFasterViT(base.BaseEncoderTester):
    encoder_names = ['tu-fastervit_0']
    supports_dilated = False
'''


class Peer(NamedTuple):
    """Another library.

    Attributes:
        distribution: Its name in a registry.
        repository: Where its tests are if its source package lacks them.
        file: The tests, below the folder ``tests``.
        edits: Texts in the file, and what is there instead; empty for :data:`ENCODER` beside it.
        select: pytest's expression for the tests that concern a backbone and need no network.
    """
    distribution: str
    repository: str
    file: str
    edits: Dict[str, str]
    select: str


PEERS = (
    Peer('timm', 'https://github.com/huggingface/pytorch-image-models', 'test_models.py',
         {'FEAT_INTER_FILTERS = [': "FEAT_INTER_FILTERS = ['timm_models',"},
         'fastervit_0 and not pretrained'),
    Peer('segmentation_models_pytorch',
         'https://github.com/qubvel-org/segmentation_models.pytorch', 'encoders/base.py', {},
         'TestFasterViT'),
    Peer('transformers', 'https://github.com/huggingface/transformers',
         'models/timm_backbone/test_modeling_timm_backbone.py',
         {'"resnet18"': '"fastervit_0"', 'else [4]': 'else [3]'},
         'not equivalence and not from_checkpoint and not with_kwargs'),
)


def main():
    PACKAGES.mkdir(parents=True, exist_ok=True)
    pip('install', '--no-deps', '--no-compile', '--upgrade', '--target', PACKAGES, '--constraint',
        ROOT / 'constraints.txt', *NEEDED)
    sys.path.append(str(PACKAGES))
    own = ROOT / 'tests/peers'
    results = {'tests/peers': pytest(
        ROOT, own / 'test_others.py', own / 'transformers_tests.py')}
    for peer in PEERS:
        results[peer.distribution] = run(peer)
    save(dict(origin(), results=results), REPORT)
    for name, found in results.items():
        print(f'[peers] {name}: {found}')
    return int(any('error' in found for found in results.values()))


def run(peer):
    """Counts of a peer's tests, or why there are none."""
    version = metadata.version(peer.distribution)
    folder = FOLDER / f'{peer.distribution}-{version}'
    about, file = dict(version=version), folder / 'tests' / peer.file
    if not file.is_file():
        download(peer.distribution, version, folder)
    if not file.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        return dict(about, error=f'its source package has no tests/{peer.file}. Before another '
                    f'run: git clone --depth 1 --branch v{version} {peer.repository} {folder}')
    text = file.read_text()
    for old, new in peer.edits.items():
        if old not in text:
            return dict(about, error=f'no {old} in tests/{peer.file}')
        text = text.replace(old, new)
    ours = file.with_name('test_fastervit.py')
    ours.write_text(text if peer.edits else ENCODER)
    # The empty file in place of the repository's settings.
    return dict(about, **pytest(folder, ours, '-c', os.devnull, '--rootdir', folder, '-p',
                                'fastervit_mm', '-k', peer.select))


def pytest(folder, tests, *options):
    """Numbers of tests, and those that failed."""
    report = FOLDER / 'report.xml'
    report.unlink(missing_ok=True)
    paths = [str(ROOT), os.environ.get('PYTHONPATH'), str(PACKAGES)]
    subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'pytest', '-q', '--tb=short', '-p',
         'no:cacheprovider', f'--junitxml={report}', *options, tests], cwd=folder,
        env=dict(os.environ, RUN_ALL='true', PYTHONPATH=os.pathsep.join(filter(None, paths))))
    return counted(report.read_text())


def download(distribution, version, folder):
    """Put the tests of a source package into a folder."""
    with tempfile.TemporaryDirectory() as temporary:
        pip('download', '--no-deps', '--no-binary', distribution, '--dest', temporary,
            f'{distribution}=={version}')
        archive, = Path(temporary).iterdir()
        shutil.unpack_archive(archive, temporary, filter='data')
        for tests in Path(temporary).glob('*/tests'):
            shutil.copytree(tests, folder / 'tests', dirs_exist_ok=True)


def pip(*arguments):
    done = subprocess.run([sys.executable, '-m', 'pip', '-q', *map(str, arguments)],
                          stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f'pip {arguments[0]} {arguments[-1]}: {first_line(done.stderr)}')


if __name__ == '__main__':
    sys.exit(main())
