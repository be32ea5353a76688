"""Post-training int8 quantization of an exported file, with onnxruntime."""
import os
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Set

from mmengine.config import Config
from torch import Tensor, nn

from ..datasets.images import IMAGES
from ..pipelines import model_batch, model_input
from .errors import ExportError
from .predicting import raw
from .writing import INPUT

# Without entropy: onnxruntime's has fewer bins than levels, and leaves every range unchanged.
METHODS = ('minmax', 'percentile')


def calibration_images(cfg: Config, model: nn.Module, folder: str,
                       limit: int = 64, input: str = 'normalized') -> Iterator[Tensor]:
    """Images of a folder as a file takes them, through the test pipeline.

    Args:
        cfg: The config.
        model: Its network, for the ``data_preprocessor``.
        folder: Folder of images; subfolders are not read.
        limit: Largest number of images, taken at equal steps of the sorted names. Default 64.
        input: What the file takes, as in :class:`~.parts.Exportable`. Default ``'normalized'``.

    Yields:
        (1, C, H, W).

    Raises:
        ExportError: For a limit below 1, a folder that does not exist or has no images, or an image
            that cannot be read.
    """
    if not os.path.isdir(folder):
        raise ExportError(f'calibration folder {folder!r}: no such folder')
    if limit < 1:
        raise ExportError(f'limit={limit}: give at least 1')
    paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in IMAGES)
    if not paths:
        raise ExportError(f'calibration folder {folder!r}: holds no image '
                          f'({", ".join(IMAGES)})')
    return _images(cfg, model, paths[::-(-len(paths) // limit)], input)


def _images(cfg: Config, model: nn.Module, paths: List[Path], input: str) -> Iterator[Tensor]:
    for path in paths:
        try:
            if input == 'normalized':
                yield model_input(model, cfg, path).float()
            else:
                yield raw(model_batch(model, cfg, path)['inputs'][0], input)[None]
        except Exception as error:
            raise ExportError(f'{path}: cannot be prepared: {error}') from error


def quantize(path: str, out: str, images: Iterable[Tensor], method: str = 'minmax') -> None:
    """Write an int8 copy of an ONNX file.

    It has quantize-dequantize pairs (QDQ). Convolutions and linear layers are quantized, inputs to
    uint8 and weights to int8 per output channel. (With int8 inputs onnxruntime on x86 computes most
    convolutions in float32.) The products inside attention, norms, softmax, the layers that compute
    positions from sizes, and decoding and choice of boxes stay in float: they are a small part of
    the work and would cause most of the loss in accuracy.

    Args:
        path: Path of the float file.
        out: Path of the int8 file.
        images: (B, C, H, W) images for calibration, as the file takes them.
        method: How ranges are chosen: ``'minmax'`` or ``'percentile'``. Default ``'minmax'``.

    Raises:
        ExportError: For a file that is not ONNX, an unknown method, or no image.
    """
    if not (str(path).endswith('.onnx') and str(out).endswith('.onnx')):
        raise ExportError(f'int8 of {str(path)!r}: the quantizer reads and writes only .onnx')
    if method not in METHODS:
        raise ExportError(f'method={method!r}: give one of {list(METHODS)}')
    import onnx
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        """Images one by one, as often as the quantizer asks."""

        def __init__(self, given: List[Tensor]):
            self.given = given
            self.rewind()

        def rewind(self) -> None:
            self.rest = iter(self.given)

        def get_next(self):
            image = next(self.rest, None)
            return None if image is None else {INPUT: image.contiguous().numpy()}

    images = list(images)
    if not images:
        raise ExportError('images=[]: calibration needs at least one image')
    with tempfile.TemporaryDirectory() as folder:
        model = folded(path, folder)
        chosen = layers(model)
        relus = [node.name for node in model.graph.node if node.op_type == 'Relu']
        quantization.quantize_static(
            model, str(out), Reader(images), quant_format=quantization.QuantFormat.QDQ,
            per_channel=True, activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8, nodes_to_quantize=[*chosen, *relus],
            op_types_to_quantize=['Conv', 'MatMul', 'Gemm', 'Relu'],  # becomes part of the layer
            calibrate_method=dict(
                minmax=quantization.CalibrationMethod.MinMax,
                percentile=quantization.CalibrationMethod.Percentile)[method],
            # A linear layer's result is mostly read in float; a convolution needs the pair.
            extra_options=dict(OpTypesToExcludeOutputQuantization=['MatMul', 'Gemm']))
    save(onnx.load(str(out)), path, out, {'int8': f'{len(chosen)} layers, {method}'})


def folded(path: str, folder: str) -> Any:
    """ONNX file with constants folded, so that each linear layer's weight is one.

    Args:
        path: The file.
        folder: Folder for a temporary file.

    Returns:
        An ``onnx.ModelProto``.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process
    out = os.path.join(folder, 'folded.onnx')
    quant_pre_process(str(path), out, skip_symbolic_shape=True, skip_onnx_shape=True)
    return onnx.load(out)


def save(model: Any, path: str, out: str, facts: Dict[str, str]) -> None:
    """Save an ``onnx.ModelProto`` made from a file, with that file's metadata and ``facts``."""
    import onnx
    given = onnx.load(str(path), load_external_data=False).metadata_props
    onnx.helper.set_model_props(model, {**{p.key: p.value for p in given}, **facts})
    onnx.save(model, str(out))


def layers(model) -> List[str]:
    """Names of the convolutions and linear layers that see pixels.

    Args:
        model: An ``onnx.ModelProto``.
    """
    weights = {w.name for w in model.graph.initializer}
    from_image: Set[str] = {INPUT}
    chosen = []
    for node in model.graph.node:  # in topological order
        if node.op_type == 'Shape' or not from_image.intersection(node.input):
            continue
        from_image.update(node.output)
        if node.op_type in ('Conv', 'Gemm', 'MatMul') and node.input[1] in weights:
            chosen.append(node.name)
    return chosen
