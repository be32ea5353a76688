"""Operators of an ONNX file, and those that TensorRT rejects."""
from typing import List, Set

# Operators that TensorRT's parser lacks or limits, or that make a shape depend on an image's
# pixels.
FORBIDDEN_OPS = frozenset((
    'Compress', 'If', 'Loop', 'Mod', 'NonZero', 'NonMaxSuppression', 'OneHot', 'OptionalHasElement',
    'Scan', 'SequenceAt', 'SequenceConstruct', 'SequenceEmpty', 'SequenceInsert', 'SplitToSequence',
    'StringNormalizer', 'Unique'))
TOP_K = 3840  # the most that TensorRT's TopK keeps
# Inputs that set the shape of the output, or where it is cut.
_SHAPE_INPUTS = dict(
    ConstantOfShape=(0, ), Expand=(1, ), Pad=(1, 3), Range=(0, 1, 2), Reshape=(1, ),
    Resize=(1, 2, 3), Slice=(1, 2, 3, 4), Split=(1, ), Squeeze=(1, ), Tile=(1, ), TopK=(1, ),
    Unsqueeze=(1, ))


def operators(path: str) -> List[str]:
    """Sorted operators of an ONNX file, functions and subgraphs included."""
    import onnx
    model = onnx.load(path, load_external_data=False)
    kinds = set()

    def visit(nodes):
        for node in nodes:
            kinds.add(node.op_type)
            for attribute in node.attribute:
                for graph in (attribute.g, *attribute.graphs):
                    visit(graph.node)

    visit(model.graph.node)
    for function in model.functions:
        visit(function.node)
    return sorted(kinds)


def forbidden_ops(path: str, detects: bool = False) -> List[str]:
    """Operators of an ONNX file that are in :data:`FORBIDDEN_OPS`.

    Args:
        path: The file.
        detects: Whether it is a whole detector, which may have NonMaxSuppression. Default False.
    """
    return sorted(FORBIDDEN_OPS.intersection(operators(path))
                  - {'NonMaxSuppression' if detects else ''})


def data_dependent_shapes(path: str) -> List[str]:
    """ONNX nodes whose output shape depends on pixel values.

    Returns:
        Each as ``'Kind (name)'``, in the graph's order.
    """
    import onnx
    graph = onnx.load(path, load_external_data=False).graph
    seen: Set[str] = {image.name for image in graph.input}  # computed from pixels
    found = []
    for node in graph.node:  # in topological order
        if any(i < len(node.input) and node.input[i] in seen
               for i in _SHAPE_INPUTS.get(node.op_type, ())):
            found.append(f'{node.op_type} ({node.name})')
        if node.op_type not in ('Shape', 'Size') and seen.intersection(node.input):
            seen.update(node.output)
    return found


def largest_top_k(path: str) -> int:
    """Most values that a TopK node of an ONNX file keeps; 0 without one."""
    import onnx
    graph = onnx.load(path, load_external_data=False).graph
    constants = {one.name: one for one in graph.initializer}
    return max((int(onnx.numpy_helper.to_array(constants[node.input[1]]).item())
                for node in graph.node if node.op_type == 'TopK'), default=0)
