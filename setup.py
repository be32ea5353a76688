"""Installation of fastervit_mm."""
from pathlib import Path
from runpy import run_path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# Whoever has OpenMMLab already installs the package alone. mmengine is in the extras because two
# distributions bring it under one import name, and pip must not install both.
EXTRAS = {
    'openmmlab': ['mmengine>=0.10.4', 'mmcv>=2.0.1,<2.2', 'mmdet>=3.3,<4',
                  'mmsegmentation>=1.2.2,<2', 'mmpretrain>=1.2,<2', 'ftfy', 'regex'],
    'onedl': ['onedl-mmengine>=0.10.12', 'onedl-mmcv>=2.3.6', 'onedl-mmdetection>=3.5.1',
              'onedl-mmsegmentation>=1.4.2', 'ftfy', 'regex'],
    'test': ['pytest', 'pytest-xdist', 'hypothesis', 'fastervit==1.0.0'],
    'dev': ['ruff', 'pre-commit', 'build'],
}

setup(
    name='fastervit_mm',
    version=run_path(str(ROOT / 'fastervit_mm' / 'version.py'))['__version__'],
    description='FasterViT as a backbone for OpenMMLab: mmdet, mmseg and mmpretrain',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords='computer vision, backbone, FasterViT, object detection, semantic segmentation, '
             'OpenMMLab, mmdet, mmseg',
    packages=find_packages(include=['fastervit_mm', 'fastervit_mm.*']),
    python_requires='>=3.10',
    install_requires=['torch>=2.6', 'timm>=1.0', 'numpy', 'matplotlib', 'pycocotools'],
    extras_require=EXTRAS,
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'License :: OSI Approved :: Apache Software License',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    zip_safe=False)
