"""mmcv's operators by torchvision equal the compiled ones, on random inputs of odd sizes.

Collected only where a compiled mmcv is installed. On a CPU it has these operators of those that are
served; the others it has for CUDA alone. tests/test_operators.py compares all with formulas.
"""
import random
from functools import partial

import mmcv.ops
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner, set_random_seed

from fastervit_mm import get_config
from fastervit_mm.models import build_model
from tests import samples
from tests.conftest import load_program
from tests.running import run_tool

program = load_program('benchmarks/mmcv_operators.py')
MODULES = program.modules()


def by_both(call):
    """Results of a call with the compiled operators and with ours."""
    found = []
    for module in (MODULES['compiled'], MODULES['ours']):
        program.serve(module)
        found.append(call())
    return found


def check_equal(call, *inputs):
    """A call's output and its gradients, within 1e-6 of their norms."""
    def with_gradients():
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        output = call(*leaves)
        weight = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
        return [output, *torch.autograd.grad(output, leaves, weight)]
    for compiled, ours in zip(*by_both(with_gradients)):
        assert compiled.norm() > 0
        assert (ours - compiled).norm() <= 1e-6 * compiled.norm()


def odd(largest):
    return random.randrange(3, largest + 1, 2)


def boxes(number, height, width):
    """(number, 4) in an image; some reach beyond it."""
    corners = torch.rand(number, 2) * torch.tensor([width, height]) * 0.9 - 2
    return torch.cat([corners, corners + 1 + torch.rand(number, 2) * 0.5 * min(height, width)], 1)


if 'compiled' in MODULES:
    @pytest.fixture(autouse=True)
    def compiled_again():
        yield
        program.serve(MODULES['compiled'])

    @pytest.fixture(params=range(5))
    def seed(request):
        torch.manual_seed(request.param)
        random.seed(request.param)

    @pytest.mark.parametrize('offset', (0, 1))
    @pytest.mark.parametrize('threshold', (0.3, 0.5, 0.7))
    @pytest.mark.parametrize('number', (1, 57, 1023))
    def test_nms(seed, number, threshold, offset):
        corners, scores = boxes(number, 333, 501), torch.rand(number)
        compiled, ours = by_both(partial(mmcv.ops.nms, corners, scores, threshold, offset))
        assert torch.equal(compiled[1], ours[1]) and torch.equal(compiled[0], ours[0])

    @pytest.mark.parametrize('agnostic', (False, True))
    def test_nms_of_classes(seed, agnostic):
        corners, scores, labels = boxes(999, 333, 501), torch.rand(999), torch.randint(7, (999,))
        compiled, ours = by_both(partial(
            mmcv.ops.batched_nms, corners, scores, labels,
            dict(type='nms', iou_threshold=0.5, max_num=101), class_agnostic=agnostic))
        assert torch.equal(compiled[1], ours[1]) and torch.equal(compiled[0], ours[0])

    @pytest.mark.parametrize('offset', (0, 1))
    @pytest.mark.parametrize('method', ('naive', 'linear', 'gaussian'))
    def test_soft_nms(seed, method, offset):
        corners, scores = boxes(151, 99, 101), torch.rand(151)
        compiled, ours = by_both(partial(mmcv.ops.soft_nms, corners, scores, 0.3, 0.5, 0.05, method,
                                         offset))
        assert torch.equal(compiled[1], ours[1])
        torch.testing.assert_close(ours[0], compiled[0], rtol=1e-6, atol=1e-6)

    def test_nms_match(seed):
        dets = torch.cat([boxes(301, 99, 101), torch.rand(301, 1)], 1)
        compiled, ours = by_both(partial(mmcv.ops.nms_match, dets, 0.3))
        assert [group.tolist() for group in compiled] == [group.tolist() for group in ours]

    @pytest.mark.parametrize('aligned', (True, False))
    @pytest.mark.parametrize('sampling', (0, 2))
    @pytest.mark.parametrize('stride', (4, 32))
    def test_roi_align(seed, stride, sampling, aligned):
        height, width, size = 20 + odd(30), 20 + odd(30), (odd(9), 7)
        rois = torch.cat([torch.randint(3, (57, 1)), boxes(57, stride * height, stride * width)], 1)
        check_equal(lambda maps: mmcv.ops.roi_align(maps, rois, size, 1 / stride, sampling, 'avg',
                                                    aligned),
                    torch.randn(3, odd(9), height, width))

    @pytest.mark.parametrize('modulated', (False, True))
    def test_deformable_convolution(seed, modulated):
        kernel, stride, dilation = (3, random.choice((1, 3))), random.choice((1, 2)), odd(3) // 2
        settings = stride, (1, 0), dilation, 3, 3
        maps = torch.randn(2, 9, 9 + odd(9), 9 + odd(9))
        weight = torch.randn(odd(15) * 3, 3, *kernel)
        out = [(side + 2 * padding - dilation * (k - 1) - 1) // stride + 1
               for side, padding, k in zip(maps.shape[2:], (1, 0), kernel)]
        points = 3 * kernel[0] * kernel[1]
        moves, masks = torch.randn(2, 2 * points, *out), torch.rand(2, points, *out)
        if modulated:
            check_equal(lambda *inputs: mmcv.ops.modulated_deform_conv2d(*inputs, *settings),
                        maps, moves, masks, weight, torch.randn(len(weight)))
        else:
            check_equal(lambda *inputs: mmcv.ops.deform_conv2d(*inputs, *settings),
                        maps, moves, weight)

    @pytest.mark.parametrize('kind', ('collect', 'distribute'))
    def test_psamask(seed, kind):
        mask = odd(7), odd(7)
        check_equal(mmcv.ops.PSAMask(kind, mask), torch.randn(2, mask[0] * mask[1], odd(9), odd(9)))

    def test_ten_steps_of_the_demo_have_the_same_losses(tmp_path, session_folder, monkeypatch):
        samples.link_shapes(tmp_path, session_folder)
        monkeypatch.chdir(tmp_path)
        cfg = get_config('mmdet/cascade_fvit_shapes')

        def losses():
            set_random_seed(0)  # of flips and of samples too
            model = build_model(cfg).train()
            model.init_weights()
            wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
            batches = iter(Runner.build_dataloader(cfg.train_dataloader, seed=0))
            return torch.stack([model.train_step(next(batches), wrapper)['loss'].detach()
                                for _ in range(10)])
        compiled, ours = by_both(losses)
        torch.testing.assert_close(ours, compiled, rtol=1e-4, atol=0)

else:
    def test_the_benchmark_names_what_it_lacks(tmp_path):
        done = run_tool('benchmarks.mmcv_operators', cwd=tmp_path)
        assert done.returncode == 1 and done.stderr.endswith(
            'mmcv: has no compiled operators to compare with. Build them: '
            'tools/make_env.py --compiled\n')
