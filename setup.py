"""Installation of fastervit_mm."""
import os
import shutil
import sysconfig
from pathlib import Path
from runpy import run_path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PACKAGE = 'fastervit_mm'
# What mim and mmengine look for in an installed package's folder .mim.
MIM = ('configs', 'tools', 'model-index.yml')

# Without an extra, OpenMMLab's packages are left alone. mmcv and mmcv-lite own the same folder, and
# pip would unpack one over the other: a compiled mmcv that is installed stays. (Only where pip
# installs, not in a wheel built for others. pip hides installed packages, but not their folders.)
COMPILED = 'PIP_BUILD_TRACKER' in os.environ and any(
    Path(sysconfig.get_path('platlib')).glob('mmcv-[0-9]*.dist-info'))
EXTRAS = {
    'openmmlab': ['mmcv' if COMPILED else 'mmcv-lite>=2.0.1,<2.2', 'mmengine>=0.10.4',
                  'mmdet>=3.3,<4', 'mmsegmentation>=1.2.2,<2', 'mmpretrain>=1.2,<2', 'ftfy',
                  'regex'],
    'onedl': ['onedl-mmengine>=0.10.12', 'onedl-mmcv>=2.3.6', 'onedl-mmdetection>=3.5.1',
              'onedl-mmsegmentation>=1.4.2', 'onedl-mmpretrain>=1.3.6', 'ftfy', 'regex'],
    'export': ['onnx', 'onnxruntime', 'onnxscript>=0.7'],
    'app': ['gradio>=6'],
    'tensorboard': ['tensorboard'],
    'docs': ['mkdocs-material'],
    'dev': ['ruff', 'mypy', 'pre-commit', 'build', 'twine'],
}
EXTRAS['test'] = ['pytest', 'pytest-xdist', 'hypothesis', 'fastervit==1.0.0', 'build', 'twine',
                  'playwright', 'openvino', 'clearml', 'segmentation-models-pytorch',
                  *EXTRAS['export'], *EXTRAS['app'], *EXTRAS['tensorboard'], *EXTRAS['docs']]


class BuildWithMim(build_py):
    """Build packages, and configs, tools and index in ``fastervit_mm/.mim``.

    A build copies them beside the built packages and nothing into the sources. An editable install,
    whose packages are the sources, gets links there.
    """

    def run(self):
        super().run()
        editable = getattr(self, 'editable_mode', False)
        folder = (ROOT if editable else Path(self.build_lib)) / PACKAGE / '.mim'
        if folder.is_dir():  # an earlier build's; it may have files since removed
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        for name in MIM:
            source, target = ROOT / name, folder / name
            if editable:
                try:
                    target.symlink_to(os.path.relpath(source, folder))
                    continue
                except OSError:  # Windows, without permission for links
                    pass
            if source.is_dir():
                # make_env.py, make_model_zoo.py and the like work only in a clone.
                shutil.copytree(source, target, ignore=shutil.ignore_patterns(
                    '__pycache__', '*.py[cod]', 'make_*.py'))
            else:
                shutil.copy2(source, target)

    def get_outputs(self, *args, **kwargs):
        """Installed files, those of :meth:`run` included."""
        folder = Path(self.build_lib) / PACKAGE / '.mim'
        return [*super().get_outputs(*args, **kwargs),
                *(str(path) for path in sorted(folder.rglob('*')) if path.is_file())]


setup(
    name=PACKAGE,
    version=run_path(str(ROOT / PACKAGE / 'version.py'))['__version__'],
    description='FasterViT as a backbone for OpenMMLab: mmdet, mmseg and mmpretrain',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE', 'WEIGHTS_LICENSE.md'],
    keywords='computer vision, backbone, FasterViT, object detection, semantic segmentation, '
             'OpenMMLab, mmdet, mmseg',
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['py.typed', 'apis/*.jinja', 'new_config/*.jinja']},
    cmdclass=dict(build_py=BuildWithMim),
    python_requires='>=3.10',
    install_requires=['torch>=2.1', 'timm>=1.0', 'numpy', 'matplotlib', 'pycocotools',
                      'jinja2', 'rich', 'pillow', 'safetensors', 'tifffile',
                      'setuptools<81'],  # mmengine imports its pkg_resources
    extras_require=EXTRAS,
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    zip_safe=False)
