"""Post-training int8 of an exported file, by onnxruntime's quantizer."""
import os
import tempfile
from pathlib import Path
from typing import Iterable, Iterator, List, Set

from mmengine.config import Config
from torch import Tensor, nn

from ..models import model_input
from .parts import ExportError
from .writing import INPUT

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
# onnxruntime's entropy method counts into fewer bins than it quantizes to: it changed no range.
METHODS = ('minmax', 'percentile')


def calibration_images(cfg: Config, model: nn.Module, folder: str,
                       limit: int = 64) -> Iterator[Tensor]:
    """Images of a folder as the network sees them: the config's test pipeline and normalisation.

    Args:
        cfg: The config.
        model: Its network, for the ``data_preprocessor``.
        folder: Pictures; folders inside are not looked into.
        limit: Of the number of pictures, taken evenly from the sorted names.

    Yields:
        float32 (1, C, H, W).

    Raises:
        ExportError: For a folder without pictures, or an image that cannot be read.
    """
    if not os.path.isdir(folder):
        raise ExportError(f'calibration folder {folder!r}: no such folder')
    if limit < 1:
        raise ExportError(f'limit={limit}: at least one picture is needed')
    paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in SUFFIXES)
    if not paths:
        raise ExportError(f'calibration folder {folder!r}: holds no picture '
                          f'({", ".join(SUFFIXES)})')
    return _images(cfg, model, paths[::-(-len(paths) // limit)])


def _images(cfg: Config, model: nn.Module, paths: List[Path]) -> Iterator[Tensor]:
    for path in paths:
        try:
            yield model_input(model, cfg, path).float()
        except Exception as error:
            raise ExportError(f'{path}: cannot be prepared: {error}') from error


def quantize(path: str, out: str, images: Iterable[Tensor], method: str = 'minmax') -> None:
    """An int8 copy of an exported ONNX file, as quantize-dequantize pairs (QDQ).

    Convolutions and linear layers, weights per output channel, symmetric, as TensorRT wants them.
    Attention's own products, norms, softmax and what computes positions from sizes stay in float:
    they are little of the work and most of the loss.

    Args:
        path: Of the float file.
        out: Of the int8 file.
        images: What activations' ranges are taken from, (B, C, H, W), normalised.
        method: ``'minmax'`` or ``'percentile'``: how a range is taken.

    Raises:
        ExportError: For a file that is not ONNX, or no image.
    """
    if not (str(path).endswith('.onnx') and str(out).endswith('.onnx')):
        raise ExportError(f'int8 of {str(path)!r}: the quantizer reads and writes .onnx')
    if method not in METHODS:
        raise ExportError(f'method={method!r}: give one of {list(METHODS)}')
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        """Images one by one; the quantizer may ask for them more than once."""

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
        raise ExportError('images: none to calibrate with')
    with tempfile.TemporaryDirectory() as folder:
        folded = os.path.join(folder, 'folded.onnx')
        # Folds constants, so that each linear layer has its weight at hand.
        quant_pre_process(str(path), folded, skip_symbolic_shape=True, skip_onnx_shape=True)
        chosen = layers(onnx.load(folded))
        quantization.quantize_static(
            folded, str(out), Reader(images), quant_format=quantization.QuantFormat.QDQ,
            per_channel=True, activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8, nodes_to_quantize=chosen,
            op_types_to_quantize=['Conv', 'MatMul', 'Gemm'],
            calibrate_method=dict(
                minmax=quantization.CalibrationMethod.MinMax,
                percentile=quantization.CalibrationMethod.Percentile)[method],
            extra_options=dict(ActivationSymmetric=True, WeightSymmetric=True))
    facts = {p.key: p.value for p in onnx.load(str(path), load_external_data=False).metadata_props}
    result = onnx.load(str(out))
    onnx.helper.set_model_props(result, {**facts, 'int8': f'{len(chosen)} layers, {method}'})
    onnx.save(result, str(out))


def layers(model) -> List[str]:
    """Names of the convolutions and linear layers that an image passes through.

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
