"""Whole networks in files, laid out as ``tools/export.py`` does, whose answers can be computed."""
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import parser

# An object of a class is what is bright in one channel: red, green or blue.
FINDER = """
<ir_version: 9, opset_import: ["" : 18]>
finder (TYPE[batch, 3, height, width] images) => (
    float[batch, 3, 4] boxes, float[batch, 3] scores, int64[batch, 3] labels, int64[batch] count,
    float[batch, 3, 28, 28] masks) {
  pixels = Cast<to = 1>(images)
  half = Constant<value_float = 127.5>()
  one = Constant<value_int = 1>()
  bright = Greater(pixels, half)
  inside = Cast<to = 1>(bright)
  two = Constant<value_ints = [2]>()
  three = Constant<value_ints = [3]>()
  across = ReduceMax<keepdims = 0>(inside, two)
  down = ReduceMax<keepdims = 0>(inside, three)
  left = ArgMax<axis = 2>(across)
  top = ArgMax<axis = 2>(down)
  last_x = ArgMax<axis = 2, select_last_index = 1>(across)
  last_y = ArgMax<axis = 2, select_last_index = 1>(down)
  right = Add(last_x, one)
  bottom = Add(last_y, one)
  corners = Concat<axis = 2>(left, top, right, bottom)
  found = ReduceMax<keepdims = 0>(across, two)
  full = Constant<value_float = 255.>()
  both = Constant<value_ints = [2, 3]>()
  brightest = ReduceMax<keepdims = 0>(pixels, both)
  share = Div(brightest, full)
  score = Mul(share, found)
  number = Constant<value_ints = [3]>()
  scores, labels = TopK<axis = 1>(score, number)
  last = Constant<value_ints = [-1]>()
  column = Unsqueeze(labels, last)
  rank = Constant<value_ints = [1, 1, 4]>()
  index = Expand(column, rank)
  places = Cast<to = 1>(corners)
  ordered = GatherElements<axis = 1>(places, index)
  zero = Constant<value_float = 0.>()
  real = Greater(scores, zero)
  number_real = Cast<to = 7>(real)
  wide = Unsqueeze(real, last)
  boxes = Where(wide, ordered, zero)
  first = Constant<value_ints = [1]>()
  count = ReduceSum<keepdims = 0>(number_real, first)
  size = Shape(scores)
  side = Constant<value_ints = [28, 28]>()
  shape = Concat<axis = 0>(size, side)
  probability = Constant<value_float = 0.9>()
  masks = Expand(probability, shape)
}"""
# Each channel's value is a class's logit, or the channel's mean a class's score.
BRIGHTEST = """
<ir_version: 9, opset_import: ["" : 18]>
brightest (TYPE[batch, 3, height, width] images) => (float[batch, 3, height, width] logits) {
  logits = Cast<to = 1>(images)
}"""
LABELS = """
<ir_version: 9, opset_import: ["" : 18]>
labels (TYPE[batch, 3, height, width] images) => (int64[batch, height, width] labels) {
  logits = Cast<to = 1>(images)
  labels = ArgMax<axis = 1, keepdims = 0>(logits)
}"""
MEANS = """
<ir_version: 9, opset_import: ["" : 18]>
means (TYPE[batch, 3, height, width] images) => (float[batch, 3] scores) {
  pixels = Cast<to = 1>(images)
  both = Constant<value_ints = [2, 3]>()
  mean = ReduceMean<keepdims = 0>(pixels, both)
  scores = Softmax<axis = 1>(mean)
}"""
_GRAPHS = dict(detection=FINDER, segmentation=BRIGHTEST, labels=LABELS, classification=MEANS)


def write(path: Path, task: str, /, **facts) -> str:
    """Write a file for a task (``'labels'``: a segmentor that gives labels); returns its path.

    Args:
        path: The file.
        task: Its task.
        **facts: Metadata that differ from those of a file for uint8 images.
    """
    kind = 'uint8' if facts.get('input', 'uint8') == 'uint8' else 'float'
    model = parser.parse_model(_GRAPHS[task].replace('TYPE', kind))
    facts = {'task': 'segmentation' if task == 'labels' else task, 'producer': 'fastervit_mm 9',
             'part': 'whole', 'input': 'uint8', 'channel_order': 'RGB', 'deployed': 'True',
             'mean': [], 'std': [], 'classes': ['red', 'green', 'blue'], 'smallest': 32,
             'resize': None, 'score_threshold': 0.05, 'max_detections': 3, 'mask_threshold': 0.5,
             **facts}
    words = ('task', 'producer', 'part', 'input', 'channel_order', 'deployed')  # not JSON
    onnx.helper.set_model_props(model, {name: fact if name in words else json.dumps(fact)
                                        for name, fact in facts.items() if facts['task']})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return str(path)


def scene(height: int, width: int, **objects) -> np.ndarray:
    """Black (H, W, 3) uint8 RGB with rectangles: a colour's (x1, y1, x2, y2) or several."""
    image = np.zeros((height, width, 3), np.uint8)
    for channel, colour in enumerate(('red', 'green', 'blue')):
        for x1, y1, x2, y2 in np.reshape(objects.get(colour, ()), (-1, 4)):
            image[y1:y2, x1:x2, channel] = 250 - 20 * channel
    return image
