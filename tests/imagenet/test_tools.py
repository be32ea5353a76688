"""The authors' file and images of ImageNet's layout through the tools, by the published name."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from fastervit_mm.datasets.imagenet import ImageNetFolders, class_indices
from tests.conftest import REPO
from tests.imagenet.conftest import SHALLOW, save_as_published, their_model
from tests.imagenet.test_preprocessing import picture, timms
from tests.running import run_tool

CONFIG = REPO / 'configs/mmpretrain/fastervit-0_in1k.py'
SERIAL = ['--cfg-options', *(f'{split}_dataloader.{setting}' for split in (
    'test', 'imagenet_a', 'imagenet_r', 'imagenet_v2') for setting in (
        'num_workers=0', 'persistent_workers=False', 'batch_size=4'))]


@pytest.fixture(scope='module')
def data(tmp_path_factory, published):
    """Eight images, and the authors' scores of them, prepared by timm."""
    root = tmp_path_factory.mktemp('data')
    (root / 'images').mkdir()
    scores = []
    for i in range(8):
        path = root / 'images' / f'ILSVRC2012_val_{i + 1:08}.JPEG'
        picture((300 + 40 * i, 420 - 20 * i), seed=i).save(path)
        with torch.no_grad():
            scores.append(published[2](timms(path, 224, 0.875, 'center', pixels=False)[None])[0])
    return root, torch.stack(scores)


def imagenet(root, labels):
    """data/imagenet as mmpretrain reads it: the images of val alone, beside meta/val.txt."""
    (root / 'data/imagenet/meta').mkdir(parents=True)
    shutil.copytree(root.parent / 'images', root / 'data/imagenet/val')
    lines = [f'{path.name} {label}' for path, label in zip(
        sorted((root / 'data/imagenet/val').iterdir()), labels)]
    (root / 'data/imagenet/meta/val.txt').write_text('\n'.join(lines))


def test_a_published_name_gives_the_authors_accuracy(data, published):
    root, scores = data
    ranked = scores.argsort(1, descending=True)
    ranks = [0, 0, 0, 1, 4, 5, 0, 900]  # of the true class: 4 of 8 first, 6 of 8 among five
    here = root / 'whole'
    imagenet(here, [int(ranked[i, rank]) for i, rank in enumerate(ranks)])
    done = run_tool('test.py', CONFIG, 'fastervit://0-224-1k', *SERIAL, cwd=here,
                    environment=dict(TORCH_HOME=str(published[0])))
    assert done.returncode == 0, done.output[-2000:]
    assert 'accuracy/top1: 50.00, published by the authors: 82.10, difference -32.10' in done.output
    assert 'accuracy/top5: 75.00, published by the authors: 95.90, difference -20.90' in done.output


def folders(root, names, labels):
    """One folder for each class, and one image in some."""
    for name in names:
        (root / name).mkdir(parents=True)
    for path, name in zip(sorted((root.parent.parent.parent / 'images').iterdir()), labels):
        shutil.copy(path, root / name / path.name)


def test_imagenet_a_is_scored_among_its_classes(data, published):
    """Each image's class is the best of the 20 present, if not of all 1000."""
    root, scores = data
    names = timm.data.ImageNetInfo().label_names()
    present = list(range(5, 1000, 50))
    best = [present[int(one[present].argmax())] for one in scores]
    assert (scores.argmax(1) != torch.tensor(best)).sum() >= 6
    best[0] = next(i for i in present if i != best[0])
    here = root / 'robust'
    folders(here / 'data/imagenet-a', [names[i] for i in present], [names[i] for i in best])
    done = run_tool('test.py', CONFIG, 'fastervit://0-224-1k', '--split', 'imagenet_a', *SERIAL,
                    cwd=here, environment=dict(TORCH_HOME=str(published[0])))
    assert done.returncode == 0, done.output[-2000:]
    assert 'accuracy/top1: 87.50, published by the authors: 23.90, difference +63.60' in done.output


@pytest.mark.parametrize('split, figure', [('imagenet_a', '23.90'), ('imagenet_r', '45.90')])
def test_only_the_two_hundred_classes_of_a_set_are_ranked(split, figure, tmp_path):
    """The sets' own 200 classes, and a network that gives every image the same scores.

    Of all classes the best is one that is not in the set, as are three of the first eight.
    """
    names = timm.data.ImageNetInfo().label_names()
    listed = Path(timm.data.__file__).parent / f'_info/{split}_synsets.txt'
    present = listed.read_text().split()
    assert len(present) == 200 and len(names) == 1000
    first, second, third, fourth, fifth, sixth = (present[i] for i in (150, 3, 77, 10, 199, 42))
    absent = [name for name in names if name not in present]
    ranking = [absent[700], first, absent[0], second, third, absent[400], fourth, fifth, sixth]

    theirs = their_model('0', depths=[1, 1, 1, 1], dim=16, in_dim=8)
    with torch.no_grad():
        theirs.head.weight.zero_()
        theirs.head.bias.zero_()
        for score, name in zip(range(9, 0, -1), ranking):
            theirs.head.bias[names.index(name)] = score
    save_as_published(theirs, tmp_path / 'narrow.pth.tar')
    (tmp_path / 'narrow.py').write_text(
        f"_base_ = {str(CONFIG)!r}\nmodel = dict(head=dict(in_channels=128), backbone=dict(arch="
        'dict(_delete_=True, embed_dim=16, stem_channels=8, depths=(1, 1, 1, 1))))\n')

    # One image is of the class that is first, five of the first five, two of others.
    root = tmp_path / 'data' / split.replace('_', '-')
    for name in present:
        (root / name).mkdir(parents=True)
    for i, name in enumerate((first, second, third, fourth, fifth, sixth, present[0], second)):
        picture((260 + i, 240), seed=i).save(root / name / f'{i}.jpg')

    done = run_tool('test.py', 'narrow.py', 'narrow.pth.tar', '--split', split, *SERIAL,
                    cwd=tmp_path)
    assert done.returncode == 0, done.output[-2000:]
    assert f'accuracy/top1: 12.50, published by the authors: {figure}' in done.output
    assert 'accuracy/top5: 75.00' in done.output  # among all 1000 it is 0.00 and 50.00


def test_folders_of_imagenet_v2_are_numbers(data, published):
    """As words, "10" comes before "2"."""
    root, scores = data
    here = root / 'v2'
    labels = [str(int(i)) for i in scores.argmax(1)]
    folders(here / 'data/imagenetv2-matched-frequency-format-val', map(str, range(1000)), labels)
    done = run_tool('test.py', CONFIG, 'fastervit://0-224-1k', '--split', 'imagenet_v2', *SERIAL,
                    cwd=here, environment=dict(TORCH_HOME=str(published[0])))
    assert done.returncode == 0, done.output[-2000:]
    assert 'accuracy/top1: 100.00, published by the authors: 70.90' in done.output


def test_a_folder_that_is_not_a_class_is_named(tmp_path):
    (tmp_path / 'cats').mkdir()
    with pytest.raises(ValueError, match="1 folders are not classes of ImageNet-1K .*'cats'"):
        ImageNetFolders(data_root=str(tmp_path))
    assert class_indices(['n01440764', '999']) == {'n01440764': 0, '999': 999}


def test_infer_names_the_classes(data, published):
    root, scores = data
    from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
    path = sorted((root / 'images').iterdir())[0]
    done = run_tool('infer.py', CONFIG, 'fastervit://0-224-1k', path, '--out', 'out', '--device',
                    'cpu', cwd=root, environment=dict(TORCH_HOME=str(published[0])))
    assert done.returncode == 0, done.stderr
    best = scores[0].softmax(0).topk(5)
    named = '; '.join(f'{IMAGENET_CATEGORIES[i]} {score:.2f}' for score, i in zip(
        best.values.tolist(), best.indices.tolist()))
    assert named in done.stdout.replace('\n', ' ')
    found, = json.loads((root / 'out/predictions.json').read_text())
    assert [one['label'] for one in found['top']] == best.indices.tolist()
    assert np.asarray(Image.open(root / 'out/vis' / f'{path.stem}.jpg')).ndim == 3


def test_converted_with_its_classifier_it_is_tested_alike(data, published):
    root, scores = data
    here = root / 'converted'
    imagenet(here, [int(one.argmax()) for one in scores])
    done = run_tool('convert_weights.py', published[1], '--classifier', cwd=here)
    assert done.returncode == 0, done.stderr
    tensors = load_file(here / 'fastervit_0_224_1k.safetensors')
    assert torch.equal(tensors['head.fc.weight'], published[2].head.weight)
    done = run_tool('test.py', CONFIG, 'fastervit_0_224_1k.safetensors', *SERIAL, cwd=here)
    assert done.returncode == 0, done.output[-2000:]
    assert 'accuracy/top1: 100.00, published by the authors' in done.output


def test_another_variant_is_refused_and_named(data, published, tmp_path):
    root, _ = data
    here = root / 'other'
    imagenet(here, [0] * 8)
    file = save_as_published(their_model('0', depths=list(SHALLOW)), tmp_path / 'file.pth.tar')
    for config, checkpoint, said in (
            ('fastervit-2', published[1], "The file looks like arch='0'"),
            ('fastervit-0', file, 'The file looks like a custom FasterViT')):
        done = run_tool('test.py', CONFIG.with_name(f'{config}_in1k.py'), checkpoint, *SERIAL,
                        cwd=here)
        assert done.returncode == 1 and 'Traceback' not in done.output
        assert 'does not fit the model of this config' in done.stderr and said in done.stderr
        assert 'accuracy' not in done.output
