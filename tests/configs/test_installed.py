"""The checks refuse none of the configs that mmdet, mmseg and mmpretrain install.

A sample of each kind in `make test`; all, some 2,000 in ten minutes, in `make test-all`.
"""
import importlib.util
import re
from pathlib import Path

import pytest
from mmengine.config import Config

from fastervit_mm.config_files import ConfigError
from fastervit_mm.engine.checks import check_config
from fastervit_mm.engine.launch import add_for_training, load_config

SAMPLE = dict(
    mmdet=['panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco', 'yolox/yolox_s_8xb8-300e_coco',
           'deepsort/deepsort_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval',
           'bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot17halftrain_test-mot17halfval',
           'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.01-coco',
           'glip/glip_atss_swin-t_a_fpn_dyhead_pretrain_obj365', 'dsdl/coco',
           'openimages/faster-rcnn_r50_fpn_32xb2-1x_openimages',
           'lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1',
           'mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic'],
    mmseg=['stdc/stdc1_4xb12-80k_cityscapes-512x1024', 'san/san-vit-b16_voc12aug-640x640',
           'unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64'],
    mmpretrain=['efficientnet_v2/efficientnetv2-s_8xb32_in21k',
                'csra/resnet101-csra_1xb16_voc07-448px',
                'simclr/simclr_resnet50_16xb256-coslr-200e_in1k', 'blip/blip-base_8xb32_caption',
                'levit/deploy/levit-128_8xb256_in1k', 'arcface/resnet50-arcface_8xb32_inshop'])
# Of data that are not there; and of one class in a config of mmdet that neither has.
FILES = re.compile('no such folder|no such file|does not exist|no such checkpoint')
UNREGISTERED = re.compile(r"([\w.]+)\.type='(.*)': no such class is registered")


def folder_of(library):
    return Path(importlib.util.find_spec(library).origin).parent / '.mim/configs'


def configs():
    for library, sample in SAMPLE.items():
        for path in sorted(folder_of(library).rglob('*.py')):
            name = path.relative_to(folder_of(library)).with_suffix('').as_posix()
            if '_base_' not in path.parts:
                yield pytest.param(library, name, marks=() if name in sample else pytest.mark.long)


def is_registered(place, name, library):
    """Whether mmengine finds a class; some of mmpretrain's need packages of their own."""
    registries = importlib.import_module(f'{library}.registry')
    kind = ('DATASETS' if 'dataset' in place else
            'METRICS' if 'evaluator' in place else 'MODELS')
    return getattr(registries, kind).get(name) is not None


@pytest.mark.parametrize('library, name', configs())
def test_an_installed_config_passes(library, name, tmp_path):
    path = str(folder_of(library) / f'{name}.py')
    try:
        cfg = Config.fromfile(path)
    except Exception:  # noqa: BLE001  some of all are broken, none of the sample
        assert name not in SAMPLE[library]
        with pytest.raises((ConfigError, FileNotFoundError)) as error:
            load_config(path)
        assert '\n' not in str(error.value) and '.py' in str(error.value)
        return
    for training, parts in ((True, ('train_dataloader', 'train_cfg', 'optim_wrapper')),
                            (False, ('test_dataloader', 'test_evaluator', 'test_cfg'))):
        if any(cfg.get(part) is None for part in ('model', *parts)):
            continue  # such as of pretraining, which has no test
        settings = load_config(path, work_dir=str(tmp_path))
        if training:
            add_for_training(settings)
        try:
            check_config(settings, training)
        except ConfigError as error:
            wrong = [line for line in str(error).splitlines() if re.match(r'  \d+\.', line)]
            wrong = [line for line in wrong or [str(error)] if not FILES.search(line)]
            assert [line for line in wrong if not (found := UNREGISTERED.search(line))
                    or is_registered(*found.groups(), library)] == []
