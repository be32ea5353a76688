"""A float16 copy of an exported file."""
import tempfile
from typing import Any, List, Set

from .quantize import folded, layers, save
from .writing import INPUT

# Their first input is a map; the others say where samples of it lie.
_SAMPLERS = ('RoiAlign', 'GridSample')
_SUFFIX = '_float16'


def halve(path: str, out: str) -> None:
    """Write a float16 copy of an ONNX file.

    The weights of layers that see the image, and the arithmetic from the first to the last of them,
    are float16. The rest stays float32: normalisation, decoding and choice of boxes, RoIAlign,
    deformable attention's sampling, what depends on sizes alone, inputs and outputs. Converters of
    onnxruntime and onnxconverter-common round to float16 between any two operators that should stay
    float32.

    Args:
        path: Path of the float file.
        out: Path of the float16 file.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    with tempfile.TemporaryDirectory() as folder:
        model = onnx.shape_inference.infer_shapes(folded(path, folder))
    graph, nodes, kinds = model.graph, [], _kinds(model.graph)
    weights = {w.name: w for w in graph.initializer}
    known = {*weights, *(i.name for i in graph.input)}

    def tensor(name: str, half: bool) -> str:
        """Name of a float tensor in 16 or 32 bits; adds what gives it."""
        source, wanted = name, name + _SUFFIX
        if not half:
            source, wanted = wanted, source
        if wanted not in known:
            known.add(wanted)
            if name in weights:
                values = numpy_helper.to_array(weights[name]).astype('float16')
                graph.initializer.append(numpy_helper.from_array(values, wanted))
            else:
                kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
                nodes.append(helper.make_node('Cast', [source], [wanted], f'{wanted}_', to=kind))
        return wanted

    chosen = arithmetic(model)
    for node in graph.node:
        half = node.name in chosen
        last = 1 if half and node.op_type == 'Resize' else None  # its scales stay float32
        for i, name in enumerate(node.input[:last]):
            if kinds.get(name) == TensorProto.FLOAT:
                node.input[i] = tensor(name, half)
        nodes.append(node)
        if half:
            _in_half(node)
            node.output[:] = [name + _SUFFIX for name in node.output]
        known.update(node.output)
    for output in graph.output:
        if kinds[output.name] == TensorProto.FLOAT:
            tensor(output.name, False)
    used = {name for node in nodes for name in node.input}
    kept = [w for w in graph.initializer if w.name in used]
    for field, values in ((graph.node, nodes), (graph.initializer, kept), (graph.value_info, [])):
        values = list(values)
        del field[:]
        field.extend(values)
    save(model, path, out, {'float16': f'{len(chosen)} operators'})


def arithmetic(model: Any) -> Set[str]:
    """Names of the operators from the first layer to the last, which may be float16.

    Args:
        model: An ``onnx.ModelProto`` with types of its tensors.
    """
    from onnx import TensorProto
    kinds = _kinds(model.graph)
    of_image, of_choice = {INPUT}, set()
    candidates = {}
    for node in model.graph.node:  # in topological order
        read = [name for name in _maps(node) if kinds.get(name) != TensorProto.BOOL]
        if node.op_type == 'TopK' or of_choice.intersection(read):
            of_choice.update(node.output)
        elif node.op_type != 'Shape' and of_image.intersection(read):
            of_image.update(node.output)
            candidates[node.name] = node
    ends, needed, found = layers(model), set(), set()
    for name, node in reversed(candidates.items()):
        if name in ends or needed.intersection(node.output):
            needed.update(n for n in _maps(node) if kinds.get(n) == TensorProto.FLOAT)
            if node.op_type not in _SAMPLERS:
                found.add(name)
        if name == ends[0]:
            break  # images of 16 bits are normalised in float32
    return found


def _maps(node: Any) -> List[str]:
    return node.input[:1] if node.op_type in _SAMPLERS else node.input


def _kinds(graph: Any) -> dict:
    """Types of tensors by name."""
    return {**{w.name: w.data_type for w in graph.initializer},
            **{v.name: v.type.tensor_type.elem_type
               for v in (*graph.input, *graph.output, *graph.value_info)}}


def _in_half(node: Any) -> None:
    """Change what an operator's attributes say of its float32 output."""
    from onnx import TensorProto
    for attribute in node.attribute:
        if node.op_type == 'Cast' and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
