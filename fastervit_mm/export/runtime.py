"""Runtime of whole networks in ONNX files: onnxruntime, numpy and Pillow alone.

A copy of this one file runs what ``tools/export.py`` writes::

    from runtime import Network, draw, read_image
    network = Network('model.onnx')
    image = read_image('street.jpg')
    found = network(image, score_thr=0.3)
    draw(image, found, network).save('seen.jpg')

Images are read and resized to the same pixels as by mmcv with OpenCV. Three kinds differ: TIFF with
alpha, by which OpenCV multiplies, and TIFF of 16-bit colours and JPEG of four inks, by one level.
"""
import colorsys
import glob
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

IMAGES = ('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.gif', '.ppm', '.pgm', '.bmp', '.tif', '.tiff',
          '.webp')
_MOST_PIXELS = 2**30  # of OpenCV
LEAST_TILE = 32  # pixels
# onnxruntime from 1.29 on reports each run to Microsoft, unless this is set before its import.
os.environ.setdefault('ORT_DISABLE_TELEMETRY', '1')

Found = Dict[str, np.ndarray]
Window = Tuple[int, int, int, int]


class Network:
    """Whole network in a file of ``tools/export.py``.

    Args:
        path: The ``.onnx`` file.

    Attributes:
        task (str): ``'detection'``, ``'segmentation'`` or ``'classification'``.
        classes (list[str]): Their names; empty if the file has none.
        category_ids (Sequence[int]): COCO's ids of the classes; numbers from 1 if it has none.
        facts (dict): The file's metadata.

    Raises:
        ValueError: For a file that onnxruntime cannot read, or that is not such a network.
    """

    def __init__(self, path: str):
        import onnxruntime  # not needed by other functions
        if not os.path.isfile(path):
            raise ValueError(f'{path}: {"a folder" if os.path.isdir(path) else "no such file"}; '
                             'give a file that tools/export.py wrote')
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        providers = [name for name in ('CUDAExecutionProvider', 'CPUExecutionProvider')
                     if name in onnxruntime.get_available_providers()]
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers)
        except Exception as error:  # onnxruntime's errors have no other class in common
            raise ValueError(f'{path}: onnxruntime {onnxruntime.__version__} cannot read it '
                             f'({first_line(error)})') from None
        self.facts: Dict[str, Any] = {name: _value(text) for name, text in (
            self._session.get_modelmeta().custom_metadata_map.items())}
        if 'task' not in self.facts:
            raise ValueError(f'{path}: not a whole network of tools/export.py; export one with '
                             '--part whole')
        self.task: str = self.facts['task']
        self.classes: List[str] = self.facts['classes']
        self.category_ids: Sequence[int] = self.facts.get('category_ids') or range(1, sys.maxsize)

    def name(self, label: int) -> str:
        """Name of a class, or its number."""
        return self.classes[label] if label < len(self.classes) else str(label)

    def __call__(self, image: np.ndarray, score_thr: float = 0., tile: Optional[int] = None
                 ) -> Found:
        """Predict on one image.

        Args:
            image: (H, W, 3) uint8 RGB.
            score_thr: Objects with a lower score are left out. Default 0.
            tile: A detector also looks at tiles of this side in pixels (:func:`tiles`). Default
                None, the whole image alone.

        Returns:
            Of a detector ``boxes`` (N, 4), x1 y1 x2 y2 in pixels of the image, ``scores`` (N,),
            falling, ``labels`` (N,) and, if it has masks, ``masks`` (N, h, w), probabilities for
            :func:`paste`; of a segmentor ``labels`` (H, W); of a classifier ``scores`` (classes,).

        Raises:
            ValueError: For an image smaller than the network takes, or tiles for a network that
                is not a detector.
        """
        if self.task != 'detection':
            if tile:
                raise ValueError(f'tile={tile}: for detectors; this file is for {self.task}')
            return self._run(image)
        parts, windows = [], tiles(image.shape, tile)
        for x1, y1, x2, y2 in windows:
            found = self._run(image[y1:y2, x1:x2])
            found = {name: values[found['scores'] >= score_thr] for name, values in found.items()}
            parts.append({**found, 'boxes': found['boxes'] + np.float32((x1, y1, x1, y1))})
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        kept = merge([part['boxes'] for part in parts], whole['scores'], whole['labels'], windows)
        return {name: values[kept] for name, values in whole.items()}

    def _run(self, image: np.ndarray) -> Found:
        (height, width), fed = image.shape[:2], prepare(image, self.facts.get('resize'))
        if min(fed.shape[:2]) < self.facts['smallest']:
            raise ValueError(f'{width} x {height} pixels, {fed.shape[1]} x {fed.shape[0]} for the '
                             f'network, which takes at least {self.facts["smallest"]} a side')
        outputs = self._session.run(None, {'images': self._normalised(fed)})
        found = {out.name: values[0] for out, values in zip(self._session.get_outputs(), outputs)}
        if self.task == 'segmentation':
            values, = found.values()
            return dict(labels=labels_at(values[..., :fed.shape[0], :fed.shape[1]], height, width))
        if self.task == 'detection':
            count = int(found.pop('count'))
            found = {name: values[:count] for name, values in found.items()}
            scale = np.float32((fed.shape[1] / width, fed.shape[0] / height) * 2)
            found['boxes'] = (found['boxes'] / scale).clip(0, np.float32((width, height) * 2))
        return found

    def _normalised(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) -> (1, 3, H, W) as the file takes it."""
        kind = np.uint8 if self.facts['input'] == 'uint8' else np.float32
        images = image.transpose(2, 0, 1)[None].astype(kind)
        if self.facts['input'] == 'normalized':
            images = images[:, ::-1] if self.facts['channel_order'] == 'BGR' else images
            mean, std = (np.float32(self.facts[name] or none)[:, None, None]
                         for name, none in (('mean', [0]), ('std', [1])))
            images = (images - mean) / std
            below, right = (-n % (self.facts.get('pad_divisor') or 1) for n in image.shape[:2])
            images = np.pad(images, ((0, 0), (0, 0), (0, below), (0, right)))
        return np.ascontiguousarray(images)


def _value(text: str) -> Any:
    """A JSON value, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def first_line(error: Exception) -> str:
    """First line of an error's message, or its kind."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def read_image(path: str, turn: bool = True) -> np.ndarray:
    """Read an image as mmcv does: (H, W, 3) uint8 RGB, turned by EXIF, without alpha.

    Args:
        path: The file.
        turn: False for networks whose metadata have ``ignore_orientation``. Default True.

    Raises:
        OSError: For a file that Pillow cannot read in full.
        ValueError: For more than 2^30 pixels.
    """
    with Image.open(path) as image:
        if image.width * image.height > _MOST_PIXELS:
            raise ValueError(f'{image.width} x {image.height} pixels; at most 2^30 are read')
        image = ImageOps.exif_transpose(image) if turn else image
        if image.mode.startswith('I'):  # grey of 16 bits
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        return np.asarray(image.convert('RGB'))


def prepare(image: np.ndarray, rule: Optional[Dict[str, Any]]) -> np.ndarray:
    """Resize and crop an image, (H, W, 3) uint8, by ``resize`` of a file's metadata.

    Args:
        image: The image.
        rule: Settings of mmcv's ``Resize`` or mmpretrain's ``ResizeEdge`` (one with ``edge``), and
            ``crop_size`` of ``CenterCrop``. None for the image as it is.
    """
    if not rule:
        return image
    (height, width), scale = image.shape[:2], rule.get('scale')
    scale = [scale, scale] if isinstance(scale, int) else scale or [width, height]
    if 'edge' in rule:
        given = dict(short=min(height, width), long=max(height, width), height=height, width=width)
        size = [max(1, int(scale[0] * n / given[rule['edge']])) for n in (width, height)]
    elif rule.get('keep_ratio'):
        factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
        size = [max(1, int(n * factor + 0.5)) for n in (width, height)]
    else:
        size = scale
    method = rule.get('interpolation', 'bilinear')
    if rule.get('backend') != 'pillow' and method == 'bilinear':
        image = resize(image, size)
    else:
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling[method.upper()]))
    crop = rule.get('crop_size', size)
    crop = [crop, crop] if isinstance(crop, int) else crop
    left, top = (max(0, round((n - side) / 2)) for n, side in zip(size, crop))
    return image[top:top + crop[1], left:left + crop[0]]


def resize(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resize (H, W, C) uint8 to (width, height), to the last bit as ``cv2.resize``, bilinear.

    Weights are integers of 11 bits. Pillow's own bilinear averages more pixels where it shrinks.
    """
    low, high, weights = _neighbours(image.shape[1], size[0])
    first, second = np.rint(weights * 2048).astype(np.int32)[..., None]
    rows = image.astype(np.int32)
    rows = (rows[:, low] * first + rows[:, high] * second) >> 4
    low, high, weights = _neighbours(image.shape[0], size[1])
    first, second = np.rint(weights * 2048).astype(np.int32)[..., None, None]
    return (((rows[low] * first >> 16) + (rows[high] * second >> 16) + 2) >> 2).astype(np.uint8)


def _neighbours(length: int, wanted: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both neighbours of each new pixel, and their weights, (2, wanted)."""
    at = ((np.arange(wanted) + 0.5) * (1 / (wanted / length)) - 0.5).astype(np.float32)
    low = np.floor(at)
    index = np.stack([low, low + 1]).astype(int).clip(0, length - 1)
    return index[0], index[1], np.stack([1 - (at - low), at - low])


def labels_at(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Labels (h, w) or logits (classes, h, w) at another size, as mmseg's labels: (H, W).

    Raises:
        ValueError: For logits of one channel, for which a file has no threshold.
    """
    if values.ndim == 2:
        return values[(np.arange(height) * len(values) // height)[:, None],
                      np.arange(width) * values.shape[1] // width]
    if len(values) == 1:
        raise ValueError('logits of one channel, without their threshold; export with --labels')
    low, high, down = _neighbours(values.shape[1], height)
    left, right, across = _neighbours(values.shape[2], width)
    rows = (values[:, low[i]] * down[0, i] + values[:, high[i]] * down[1, i] for i in range(height))
    return np.stack([  # row by row, for little memory
        (row[:, left] * across[0] + row[:, right] * across[1]).argmax(0) for row in rows])


def tiles(shape: Sequence[int], side: Optional[int]) -> List[Window]:
    """List the whole image and tiles that overlap by at least a quarter: x1, y1, x2, y2.

    Args:
        shape: (height, width, ...) of the image.
        side: Of the tiles; None for the whole image alone.
    """
    height, width = shape[:2]
    windows = [(0, 0, width, height)]
    if side:
        rows, columns = (np.linspace(0, max(length - side, 0), 1 + max(
            0, -(-(length - side) // (side - side // 4)))).astype(int).tolist()
            for length in (height, width))
        windows += [(x, y, min(x + side, width), min(y + side, height))
                    for y in rows for x in columns]
    return list(dict.fromkeys(windows))  # once, if one tile is the whole


def merge(boxes: Sequence[np.ndarray], scores: np.ndarray, labels: np.ndarray,
          windows: Sequence[Window]) -> np.ndarray:
    """Merge the boxes of several tiles, class by class.

    The whole image is there for large objects: its boxes with sides of less than half a tile's go.
    A box goes where another tile has a better one and they share more than half of their union; a
    box that its tile's edge cuts, where they share more than half of the smaller of both. Boxes
    that are not cut are better than those that are, then those of a higher score. Boxes of the
    same tile stay as the network chose them.

    Args:
        boxes: Of each tile, (n, 4), x1 y1 x2 y2 in the image.
        scores, labels: (N,), of all tiles together.
        windows: The tiles, the whole image first.

    Returns:
        Indices of the boxes that stay, by falling score.
    """
    cut = np.concatenate([((abs(own - np.float32(window)) < (window[2] - window[0]) / 50)
                           & (np.array(window) != windows[0])).any(1)
                          for own, window in zip(boxes, windows)])
    owner = np.repeat(np.arange(len(boxes)), [len(own) for own in boxes])
    least = (windows[1][2] - windows[1][0]) / 2 if len(windows) > 1 else 0
    boxes = np.concatenate(boxes)
    sides = boxes[:, 2:] - boxes[:, :2]
    order, areas, kept = np.lexsort((-scores, cut)), sides.prod(1), []
    order = order[(owner[order] > 0) | (sides[order].max(1) >= least)]
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        shared = (np.minimum(boxes[best, 2:], boxes[order, 2:])
                  - np.maximum(boxes[best, :2], boxes[order, :2])).clip(0).prod(1)
        of = np.where(cut[order], np.minimum(areas[best], areas[order]),
                      areas[best] + areas[order] - shared)
        others = (labels[order] != labels[best]) | (owner[order] == owner[best])
        order = order[others | (shared <= of / 2)]
    return np.array(sorted(kept, key=lambda i: -scores[i]), int)


def paste(mask: np.ndarray, box: np.ndarray, shape: Sequence[int], threshold: float
          ) -> Tuple[np.ndarray, int, int]:
    """Paste probabilities, (h, w), into their box, as mmdet does.

    Returns:
        The mask around the box as bool, and its left and top in the image of ``shape``.
    """
    left, top = (np.floor(box[:2]) - 1).clip(0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(box[2:]) + 1, shape[1::-1]).astype(int)

    def weights(first, last, start, end, side):
        at = (np.arange(first, last, dtype=np.float32) + 0.5 - start) / max(end - start, 1e-6)
        return np.maximum(0, 1 - abs((at * side - 0.5)[:, None] - np.arange(side)))

    rows = weights(top, bottom, box[1], box[3], mask.shape[0])
    columns = weights(left, right, box[0], box[2], mask.shape[1])
    return rows @ mask @ columns.T >= threshold, left, top


def rle(mask: np.ndarray, left: int, top: int, shape: Sequence[int]) -> Dict[str, Any]:
    """COCO's compressed RLE of a mask, (h, w) bool at left and top of an image."""
    height, width = (int(n) for n in shape[:2])
    strip = np.zeros((mask.shape[1], height), bool)  # by columns
    strip[:, top:top + len(mask)] = mask.T
    edges = np.flatnonzero(np.diff(strip.ravel(), prepend=False, append=False)) + left * height
    counts = np.diff(edges, prepend=0, append=height * width).tolist()
    text = ''
    for i, count in enumerate(counts if counts[-1] else counts[:-1]):
        count, more = count - (counts[i - 2] if i > 2 else 0), True
        while more:
            bits, count = count & 31, count >> 5
            more = count != (-1 if bits & 16 else 0)
            text += chr(bits + 32 * more + 48)
    return dict(size=[height, width], counts=text)


def instances(found: Found, network: Network, shape: Sequence[int]) -> List[Dict[str, Any]]:
    """Entries of a COCO results file for a detector's objects in an image of ``shape``."""
    threshold = network.facts.get('mask_threshold')
    entries = [dict(category_id=network.category_ids[label], score=score,
                    bbox=[x1, y1, x2 - x1, y2 - y1]) for label, score, (x1, y1, x2, y2) in zip(
                        *(found[name].tolist() for name in ('labels', 'scores', 'boxes')))]
    for entry, mask, box in zip(entries, found.get('masks', ()), found['boxes']):
        entry['segmentation'] = rle(*paste(mask, box, shape, threshold), shape)
    return entries


def likeliest(found: Found, network: Network) -> List[Dict[str, Any]]:
    """A classifier's five likeliest classes, the likeliest first."""
    return [dict(label=label, name=network.name(label), score=float(found['scores'][label]))
            for label in (-found['scores']).argsort(kind='stable')[:5].tolist()]


def draw(image: np.ndarray, found: Found, network: Network) -> Image.Image:
    """Draw objects, areas or the likeliest class.

    Images below 480 pixels are enlarged up to three times, so that names can be read.

    Args:
        image: (H, W, 3) uint8 RGB.
        found: What the network found in it.
        network: The network.
    """
    times = min(max(-(-480 // max(image.shape[:2])), 1), 3)
    picture = Image.fromarray(image).resize([times * n for n in image.shape[1::-1]])
    if network.task == 'segmentation':
        colours = np.array([_colour(i) for i in range(found['labels'].max() + 1)], np.uint8)
        return Image.blend(picture, Image.fromarray(colours[found['labels']]).resize(
            picture.size, Image.Resampling.NEAREST), 0.5)
    if network.task == 'classification':
        label = int(found['scores'].argmax())
        found = dict(boxes=np.zeros((1, 4)), labels=[label], scores=[found['scores'][label]])
    boxes, pen = found['boxes'] * times, ImageDraw.Draw(picture)
    for mask, box, label in zip(found.get('masks', ()), boxes, found['labels']):
        mask, *place = paste(mask, box, picture.size[::-1], network.facts['mask_threshold'])
        picture.paste(_colour(label), place, Image.fromarray(mask.astype(np.uint8) * 128))
    font = ImageFont.load_default(max(13, max(picture.size) / 70))
    for box, label, score in [*zip(boxes, found['labels'], found['scores'])][::-1]:  # best on top
        text, colour = f'{network.name(label)} {score:.2f}', _colour(label)
        pen.rectangle(box.tolist(), outline=colour, width=max(2, max(picture.size) // 500))
        long, high = pen.textbbox((1, 1), text, font)[2:]
        x, y = max(0, min(box[0], picture.width - long)), max(0, min(box[1], picture.height - high))
        pen.rectangle((x, y, x + long, y + high), fill=colour)
        pen.text((x + 1, y + 1), text, 'black' if sum(colour) > 380 else 'white', font)
    return picture


def _colour(label: int) -> Tuple[int, ...]:
    """Colour of a class; hues of near numbers lie far apart."""
    return tuple(int(255 * part) for part in colorsys.hsv_to_rgb(0.618 * label % 1, 0.8, 0.9))


def collect(inputs: Sequence[str], out: Path) -> Dict[str, str]:
    """Paths of images, and the names of their results.

    Args:
        inputs: Images, folders with all below them, and patterns.
        out: Folder of results, which are not inputs of a folder around them.
    """
    paths, folders = [], []
    for given in inputs:
        results = {out.resolve() / name for name in ('vis', 'pred')} - {
            *(Path(given).resolve() / 'x').parents}
        pattern = os.path.join(glob.escape(given), '**', '*') if os.path.isdir(given) else given
        found = sorted(path for path in glob.glob(pattern, recursive=True) if path == given or (
            path.lower().endswith(IMAGES) and not results & {*Path(path).resolve().parents}))
        paths += found or [given]
        folders += [given] if os.path.isdir(given) else map(os.path.dirname, found or [given])
    root = os.path.commonpath(map(os.path.abspath, folders))
    full = {path: Path(os.path.relpath(path, root)) for path in paths}
    stems = Counter(name.with_suffix('') for name in full.values())
    return {path: str(name if stems[stem := name.with_suffix('')] > 1 else stem)
            for path, name in full.items()}
