"""Each part of the campaign on photographs, with few images and steps."""
import json
import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from PIL import Image
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.photographs import report
from benchmarks.photographs.carry_out import Laboratory
from benchmarks.photographs.parts import PRETRAINED, networks, parts
from fastervit_mm.complexity import ATTENTION
from tests.datasets.test_label_maps import photo, write
from tests.new_config.test_new_config import coco
from tests.running import run_tool

RUNS = {
    'pretrain': 'pretrain', 'transfer-camvid': 'camvid-scratch-0',
    'transfer-nuclei': 'nuclei-pretrained-0', 'transfer-cells': 'cells-pretrained-1',
    'transfer-nuclei-longer': 'nuclei-longer',
    'settings-camvid': 'camvid-windows-20-and-10', 'settings-cells': 'cells-layer-decay-0.7',
    'compare-pretrain': 'pretrain-resnet', 'compare-256': 'resnet-256-pretrained-0',
    'compare-480': 'swin-480-scratch-0'}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('photographs')
    for split in ('train', 'val'):
        for number in range(20):
            photo(root / f'imagenette128/{split}/n{number % 10}/{number}.jpg', number)
    write(root / 'camvid', splits=('training', 'validation', 'testing'), values=range(11))
    coco(root / 'nuclei', (256, 256), 20, masks=True, splits=('train', 'val'))
    coco(root / 'bccd')
    for label_map in root.glob('camvid/annotations/*/*'):
        Image.open(label_map).resize((128, 96), Image.Resampling.NEAREST).save(label_map)
    # No image is in two splits.
    for number, image in enumerate(root.glob('camvid/images/*/*')):
        photo(image, number, (128, 96))
    for number, image in enumerate(root.glob('bccd/test/*')):
        photo(image, number, (640, 480))
    return root


def test_every_part_trains_tests_and_is_not_done_twice(data, tmp_path):
    assert list(RUNS) == list(parts())
    command = ['benchmarks.photographs', '--runs', *RUNS.values(), '--data', data, '--jobs', 2,
               '--work-dir', tmp_path / 'runs', '--images', 4, '--scale', 0.5, '--amp', 'bf16']
    done = run_tool(*command, cwd=tmp_path)
    assert done.returncode == 0, done.output
    results = json.loads((tmp_path / 'runs/results.json').read_text())
    assert {part: list(rows) for part, rows in results.items()} == {
        part: [name] for part, name in RUNS.items()}
    for part, (row, ) in ((part, rows.values()) for part, rows in results.items()):
        assert row['metrics'] and row['commit'] and row['machine']['torch'], part
        assert bool(row['metrics_tta']) == (row['tta'] and part.startswith('transfer-')), part
    for folder in (tmp_path / 'runs').glob('*/'):
        shutil.rmtree(folder)
    again = run_tool(*command, cwd=tmp_path)
    assert again.returncode == 0 and not [*(tmp_path / 'runs').glob('*/')], again.output
    page = tmp_path / 'page.md'
    page.write_text('\n'.join(f'<!-- {name} -->\n<!-- end -->' for name in (
        'pretrain', 'transfer', 'settings-camvid', 'settings-cells', 'compare')))
    for task in ('camvid', 'cells'):  # one setting stands for the unchanged network
        rows = results[f'settings-{task}']
        rows[f'{task}-base-0'] = next(iter(rows.values()))
    report.write(results, page)
    assert page.read_text().count('\n| ') == 3 + 6 + 4 + 4 + 3
    assert '| windows 20 and 10 | ' in page.read_text()
    report.draw(results, tmp_path / 'curves.png')
    assert (tmp_path / 'curves.png').stat().st_size > 5000


def test_several_processes_share_a_trainings_batch(data, tmp_path):
    done = run_tool('benchmarks.photographs', 'transfer-cells', '--runs', 'cells-scratch-0',
                    '--processes', 2, '--data', data, '--work-dir', tmp_path, '--images', 8,
                    '--scale', 0.5, cwd=tmp_path)
    assert done.returncode == 0, done.output
    assert Config.fromfile(tmp_path / 'cells-scratch-0.py').train_dataloader.batch_size == 2
    log, = (tmp_path / 'cells-scratch-0').glob('2*/*.log')
    assert 'Distributed launcher: pytorch' in log.read_text()
    assert '[2][2/2]' in log.read_text()  # 8 images, 2 processes of 2


def test_a_copied_backbone_loads_whole(tmp_path):
    settings, _ = networks()['fastervit']
    del settings['_delete_']
    backbone = MODELS.build(settings)
    torch.save(dict(state_dict={
        **{f'backbone.{name}': tensor for name, tensor in backbone.state_dict().items()},
        'head.fc.weight': torch.rand(10, 256)}), tmp_path / 'epoch_1.pth')
    report.copy_backbone(tmp_path / 'epoch_1.pth', tmp_path / 'copy.safetensors')
    copied = load_file(tmp_path / 'copy.safetensors')
    assert set(copied) == set(backbone.state_dict())
    assert all(torch.equal(copied[name], tensor.half() if tensor.is_floating_point() else tensor)
               for name, tensor in backbone.state_dict().items())


def test_a_transfer_alone_starts_from_the_backbone_of_the_page(data, tmp_path):
    run = next(run for run in parts()['transfer-nuclei'] if run.start)
    config = Config.fromfile(Laboratory(data, tmp_path).write_config(run))
    backbone = MODELS.build(config.model.backbone)
    backbone.init_weights()
    kept, loaded = load_file(PRETRAINED), backbone.state_dict()
    assert kept and all(torch.equal(loaded[name], tensor.to(loaded[name].dtype))
                        for name, tensor in kept.items())


def test_networks_have_equal_multiply_adds():
    init_default_scope('mmdet')
    counted = {}
    for name, (backbone, widths) in networks().items():
        backbone.pop('_delete_')
        network = MODELS.build(backbone)
        network.eval()
        counter = FlopCounterMode(display=False, custom_mapping=ATTENTION)
        with torch.no_grad(), counter:
            maps = network(torch.rand(1, 3, 256, 256))
        assert [level.shape[1] for level in maps] == widths, name
        counted[name] = counter.get_total_flops() / 2 / 1e9
    assert all(abs(count - 1) < 0.05 for count in counted.values()), counted
