"""Curves of a run from the scalars that mmengine wrote."""
import json
from pathlib import Path
from typing import Dict, List, Tuple, Union

Curve = List[Tuple[int, float]]
# Of everything evaluated, what one looks at first; in this order.
_HEADLINES = ('mAP', 'mIoU', 'top1')


def read_run(log_dir: Union[str, Path]) -> Dict[str, Curve]:
    """The curves of a run: name -> [(iteration, value), ...].

    Args:
        log_dir: The run's time-stamped folder in its work directory.

    Returns:
        Losses, learning rate and metrics. A metric stands at the iteration at which it was
        measured, also where mmengine counts it in epochs. Empty where nothing was logged.
    """
    curves: Dict[str, Curve] = {}
    iteration = 0
    for file in sorted(Path(log_dir).glob('vis_data/scalars.json')):
        for line in file.read_text().splitlines():
            scalars = json.loads(line)
            if 'loss' in scalars:
                iteration = scalars.get('iter', scalars['step'])
            for name, value in scalars.items():
                if isinstance(value, (int, float)) and name not in ('step', 'iter', 'epoch'):
                    curves.setdefault(name, []).append((iteration, value))
    return curves


def plot_run(log_dir: Union[str, Path], picture: Union[str, Path]) -> bool:
    """Draw the loss and the metrics that matter of one run; False where there is no loss.

    Args:
        log_dir: As :func:`read_run`'s.
        picture: PNG to write.
    """
    # Without pyplot: a hook must not touch the figures or the back-end of whoever runs it.
    from matplotlib.figure import Figure
    curves = read_run(log_dir)
    if 'loss' not in curves:
        return False
    metrics = [name for name in curves
               if any(name.split('/')[-1].endswith(h) for h in _HEADLINES)]
    figure = Figure(figsize=(9, 3.6), layout='constrained')
    axes = figure.subplots(1, 2 if metrics else 1, squeeze=False)[0]
    axes[0].plot(*zip(*curves['loss']))
    axes[0].set(title='Training loss', xlabel='iteration', ylim=(0, None))
    if metrics:
        for name in metrics:
            axes[1].plot(*zip(*curves[name]), marker='o', label=name)
        # mmdet reports from 0 to 1, mmseg and mmpretrain in per cent.
        top = max(value for name in metrics for _, value in curves[name])
        axes[1].set(title='Validation', xlabel='iteration', ylim=(0, 1 if top <= 1 else 100))
        axes[1].legend(loc='lower right')
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.savefig(picture, dpi=130)
    return True
