"""Hooks of mmengine's runner."""
from pathlib import Path
from typing import Dict, Optional, Sequence

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner

from ..backbone import FasterViT
from ..weights import CheckpointError
from .curves import headlines, plot_run, read_run


@HOOKS.register_module()
class CurvesHook(Hook):
    """Say after each validation where the run stands, and leave ``work_dir/curves.png`` at its end.

    The line has the metrics that matter, each beside the best so far; the picture the loss and the
    same metrics over all iterations. Both are of the scalars that mmengine's ``LoggerHook`` and
    ``LocalVisBackend`` write, also those from before a run was resumed.
    """
    priority = 'VERY_LOW'  # behind LoggerHook, which writes the last scalars

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: Optional[Dict[str, float]] = None) -> None:
        if not isinstance(runner._train_loop, BaseLoop):
            return  # validation by itself; runner.iter would build the training loop
        curves = read_run(runner.work_dir)
        stands = []
        for name in headlines(metrics or {}):
            now = float(metrics[name])
            best, place = max([(value, -place) for place, value in curves.get(name, [])],
                              default=(now, -runner.iter))
            stands.append(f'{name} {now:.4g} (best {best:.4g}, at iteration {-place})')
        if stands:
            runner.logger.info(f'Validation at iteration {runner.iter}: {", ".join(stands)}')

    @master_only
    def after_train(self, runner: Runner) -> None:
        picture = Path(runner.work_dir) / 'curves.png'
        if plot_run(runner.work_dir, picture):
            runner.logger.info(f'Curves of loss and metrics: {picture}')


@HOOKS.register_module()
class OverlaysHook(Hook):
    """Leave a picture of every tested image: ground truth, where there is one, and prediction.

    Drawn by the config's visualizer, such as mmseg's ``SegLocalVisualizer``, in the palette of its
    data set.

    Args:
        out_dir: Folder of the pictures, ``<name of the image>.png``.
    """

    def __init__(self, out_dir: str):
        self.out_dir = Path(out_dir)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: dict = None,
                        outputs: Sequence = ()) -> None:
        import mmcv
        for sample in outputs:
            image = mmcv.imread(sample.img_path, channel_order='rgb')
            name = Path(sample.img_path).stem
            runner.visualizer.add_datasample(name, image, sample, step=batch_idx,
                                             out_file=str(self.out_dir / f'{name}.png'))


@HOOKS.register_module()
class DeployHook(Hook):
    """Fold the model's FasterViT before a test, once its checkpoint is loaded.

    See :meth:`fastervit_mm.FasterViT.deploy`.
    """

    def before_test(self, runner: Runner) -> None:
        backbones = [m for m in runner.model.modules() if isinstance(m, FasterViT)]
        if not backbones:
            raise ValueError('deploy=True: the model has no FasterViT backbone to fold')
        for backbone in backbones:
            backbone.eval().deploy()


@HOOKS.register_module()
class CompleteCheckpointHook(Hook):
    """Refuse a checkpoint that does not fill the model it is loaded into.

    mmengine loads with ``strict=False``: with a checkpoint of another variant it warns and goes on
    to evaluate a half-random network.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model = runner.model
        while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
            model = model.module
        own = model.state_dict()
        tensors = {k[len('module.'):] if k.startswith('module.') else k: v
                   for k, v in checkpoint.get('state_dict', checkpoint).items()}
        missing = [k for k in own if k not in tensors and not k.endswith('num_batches_tracked')]
        mismatched = [f'{k} ({tuple(tensors[k].shape)} in the file, {tuple(own[k].shape)} in the '
                      'model)' for k in own if k in tensors and tensors[k].shape != own[k].shape]
        unexpected = [k for k in tensors if k not in own]
        if missing or mismatched:
            raise CheckpointError(
                f'checkpoint={runner._load_from!r}: does not fit the model of this config: '
                f'{len(missing)} of {len(own)} tensors are missing {missing[:3]}, '
                f'{len(mismatched)} have another shape {mismatched[:3]}, {len(unexpected)} of the '
                f'file have no place {unexpected[:3]}. Give the config that the checkpoint was '
                'trained with; it lies beside it in the work directory')
