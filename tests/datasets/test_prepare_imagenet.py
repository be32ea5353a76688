"""tools/prepare_data.py imagenet: unpacking its tar files, and problems of its images."""
import io
import tarfile

import pytest
from rich.console import Console
from timm.data import ImageNetInfo

from fastervit_mm.datasets.checking import check_class_folders, check_class_list
from fastervit_mm.datasets.prepare import prepare
from tests.imagenet.test_preprocessing import picture
from tests.running import run_tool


def jpeg(seed):
    file = io.BytesIO()
    picture((40, 30), seed=seed).save(file, 'JPEG')
    return file.getvalue()


def tar(path, **files):
    with tarfile.open(path, 'w:gz' if path.name.endswith('.gz') else 'w') as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def root(tmp_path):
    root = tmp_path / 'imagenet'
    root.mkdir()
    images = {f'ILSVRC2012_val_{i:08}.JPEG': jpeg(i) for i in (1, 2, 3)}
    tar(root / 'ILSVRC2012_img_val.tar', **images)
    tar(tmp_path / 'caffe_ilsvrc12.tar.gz', **{
        './val.txt': ''.join(f'{name} {i}\n' for i, name in enumerate(images)).encode(),
        'train.txt': b''})
    return root


def test_the_downloads_are_unpacked_into_mmpretrains_layout(root, tmp_path):
    console = Console(record=True, width=200)
    assert prepare('imagenet', str(root), console=console)
    assert sorted(p.name for p in root.iterdir()) == ['ILSVRC2012_img_val.tar', 'meta', 'val']
    assert len(list((root / 'val').iterdir())) == 3
    assert [p.name for p in (root / 'meta').iterdir()] == ['val.txt']


@pytest.mark.parametrize('damage', [
    lambda file: file.write_bytes(file.read_bytes()[:2000]),
    lambda file: tar(file, **{'../outside.JPEG': b'no'})])
def test_a_damaged_download_leaves_nothing_behind(damage, root, tmp_path):
    damage(root / 'ILSVRC2012_img_val.tar')
    console = Console(record=True, width=200)
    assert not prepare('imagenet', str(root), console=console)
    assert 'truncated or damaged' in console.export_text()
    assert not (root / 'val').exists() and not list(tmp_path.rglob('outside.JPEG'))


def test_the_check_finds_what_is_wrong(root, tmp_path):
    assert run_tool('prepare_data.py', 'imagenet', '--root', root, cwd=tmp_path).returncode == 0
    (root / 'val/ILSVRC2012_val_00000002.JPEG').write_bytes(jpeg(2)[:300])
    done = run_tool('prepare_data.py', 'imagenet', '--root', root, '--check', cwd=tmp_path,
                    environment=dict(COLUMNS='200'))
    assert done.returncode == 1 and 'Traceback' not in done.output
    for said in ('number of images differs from the published', 'val: 3, published 50000',
                 'unreadable image', 'ILSVRC2012_val_00000002.JPEG',
                 'number of images of a class differs from the published'):
        assert said in done.output


def test_folders_of_classes_need_no_list(tmp_path):
    folder = tmp_path / 'imagenet/val/n01440764'
    folder.mkdir(parents=True)
    (folder / 'a.JPEG').write_bytes(jpeg(0))
    assert prepare('imagenet', str(tmp_path / 'imagenet'), console=Console(quiet=True))


def test_a_list_of_classes_is_compared_with_the_images(tmp_path):
    path = tmp_path / 'val.txt'
    path.write_text('a.JPEG 0\nb.JPEG 2\nb.JPEG 1\nc.JPEG\nd.JPEG -1\n')
    found = check_class_list(path, ['a.JPEG', 'e.JPEG'], num_classes=2, each=1)
    assert found == [
        ('class out of range', "val.txt: line 2: 'b.JPEG 2'; classes are 0 to 1"),
        ('malformed line', "val.txt: line 4: 'c.JPEG'; expected \"image class\""),
        ('malformed line', "val.txt: line 5: 'd.JPEG -1'; expected \"image class\""),
        ('listed image that is missing', 'val.txt: b.JPEG'),
        ('image listed more than once', 'val.txt: b.JPEG'),
        ('image that is not listed', 'val.txt: e.JPEG')]
    path.write_text('a.JPEG 0\ne.JPEG 1\n')
    assert check_class_list(path, ['a.JPEG', 'e.JPEG'], num_classes=2, each=1) == []


def test_folders_are_compared_with_the_classes():
    names = ImageNetInfo().label_names()
    whole = [f'{name}/{i}.JPEG' for name in names for i in range(2)]
    assert check_class_folders(whole, each=2) == []
    found = check_class_folders(['cats/1.JPEG', *whole[3:]], each=2)
    assert found == [('folder that is not a class of ImageNet-1K', 'cats'),
                     ('class without a folder of images', names[0]),
                     ('number of images of a class differs from the published',
                      f'{names[1]}: 1, published 2')]
