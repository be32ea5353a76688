"""Time exported detectors, in turns, beside PyTorch."""
import argparse
import sys
import warnings
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

import numpy as np
import torch
from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from benchmarks.reports import origin, save
from fastervit_mm.backbone import StagedBackbone
from fastervit_mm.command_line import errors_in_one_line
from fastervit_mm.engine.onednn import use_onednn
from fastervit_mm.models import load_model

from .cases import Case, Product
from .measure import Laps, NotMeasured, spread
from .peers import Size
from .workers import Worker, in_turns

Step = Callable[[], object]


def pytorch(what: str, images: np.ndarray) -> Step:
    """``CONFIG=CHECKPOINT``, deployed, through ``test_step``: masks are pasted too."""
    from mmdet.structures import DetDataSample
    config, checkpoint = what.split('=')
    model = use_onednn(load_model(Config.fromfile(config), checkpoint))
    for module in model.modules():
        if isinstance(module, StagedBackbone):
            module.switch_to_deploy()
    given = list(torch.from_numpy(images).flip(1))
    shape = images.shape[2:]
    meta = dict(img_shape=shape, ori_shape=shape, scale_factor=(1., 1.))
    return lambda: model.test_step(dict(
        inputs=list(given), data_samples=[DetDataSample(metainfo=dict(meta)) for _ in given]))


def onnxruntime(what: str, images: np.ndarray) -> Step:
    """A file by onnxruntime."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(what, options, providers=['CPUExecutionProvider'])
    return lambda: session.run(None, {'images': images})


def openvino(what: str, images: np.ndarray, **settings: str) -> Step:
    """A file by OpenVINO in the precision that it chooses: bfloat16 on a CPU with AMX."""
    from openvino import Core
    model = Core().compile_model(what, 'CPU', dict(
        INFERENCE_NUM_THREADS=torch.get_num_threads(), **settings))
    return lambda: model(images)


def openvino_f32(what: str, images: np.ndarray) -> Step:
    """A file by OpenVINO, all that is not int8 in float32."""
    return openvino(what, images, INFERENCE_PRECISION_HINT='f32')


class FileCase:
    """Network or file in an engine, warmed up.

    Args:
        engine: One of the functions above.
        what: ``CONFIG=CHECKPOINT`` or a file for uint8 images.
        size: (height, width) of the image, which is noise.
    """

    def __init__(self, engine: Callable[..., Step], what: str, size: Size):
        image = np.random.default_rng(0).integers(0, 256, (1, 3, *size), np.uint8)
        with torch.inference_mode():
            self.step = engine(what, image)
            self._laps = Laps(self.step, torch.device('cpu'))

    @torch.inference_mode()
    def lap(self, burn_in: float) -> float:
        return Case.lap(self, burn_in)

    verify = Product.verify


def time_files(whats: Sequence[str], sizes: Sequence[Size], rounds: int) -> List[Dict]:
    """Time networks and files in every engine, in turns.

    Args:
        whats: ``CONFIG=CHECKPOINT`` or files.
        sizes: (height, width) of images.
        rounds: Laps of each.

    Returns:
        A dict for each: what, engine, size; seconds, their quartiles and all laps, or the error.
    """
    engines = [onnxruntime, *[openvino, openvino_f32] * (find_spec('openvino') is not None)]
    rows, workers = [], {}
    for size, what in product(sizes, whats):
        for engine in [pytorch] if '=' in what else engines:
            rows.append(dict(what=what, engine=engine.__name__, size=size))
            try:
                workers[len(rows) - 1] = Worker(FileCase, engine, what, size)
            except NotMeasured as reason:
                rows[-1]['error'] = str(reason)
    seconds = in_turns(workers, rounds, 0,
                       lambda key, reason: rows[key].update(error=str(reason)))
    for key, worker in workers.items():
        median, low, high = spread(seconds[key])
        rows[key].update(seconds=median, low=low, high=high, all_seconds=seconds[key])
        worker.close()
    return rows


def show(rows: Sequence[Dict], console: Optional[Console] = None) -> None:
    """Print a table of rows."""
    table = Table(title='Milliseconds, medians of laps in turns', title_justify='left')
    for name in ('', 'engine', 'size', 'ms', 'over the fastest'):
        table.add_column(name, justify='right' if 'ms' in name or 'over' in name else 'left')
    for row in rows:
        best = min(r['seconds'] for r in rows if r['size'] == row['size'] and 'seconds' in r)
        table.add_row(Path(row['what']).name, row['engine'], ' x '.join(map(str, row['size'])),
                      *([f'{1e3 * row["seconds"]:.0f}', f'{row["seconds"] / best:.2f}']
                        if 'seconds' in row else [row['error']]))
    (console or Console()).print(table)


def report(rows: Sequence[Dict], out: Path) -> None:
    """Write rows as JSON, with command, machine and versions."""
    about = origin()
    about['machine']['versions'].update({
        name: version(name) for name in ('onnxruntime', 'openvino') if find_spec(name)})
    save(dict(about, rows=rows), out)


def main():
    parser = argparse.ArgumentParser(prog='python -m benchmarks.speed.files', description=__doc__)
    parser.add_argument('whats', nargs='+', metavar='WHAT', help='CONFIG=CHECKPOINT for PyTorch, '
                        'or a whole detector\'s .onnx file for uint8 images')
    parser.add_argument('--sizes', nargs='+', default=['800x1280'], metavar='HxW',
                        help='image sizes in pixels (default: 800x1280)')
    parser.add_argument('--rounds', type=int, default=10, help='laps of each (default: 10)')
    parser.add_argument('--threads', type=int, default=1, help='(default: 1)')
    parser.add_argument('--out', type=Path, help='write the figures there as JSON')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(args.threads)
    with errors_in_one_line('files'):
        sizes = [tuple(int(n) for n in size.split('x')) for size in args.sizes]
        rows = time_files(args.whats, sizes, args.rounds)
    show(rows)
    if args.out:
        report(rows, args.out)


if __name__ == '__main__':
    sys.exit(main())
