"""The shapes dataset: scenes on disk, annotated for detection and for segmentation."""
import json
import shutil
import tempfile
from pathlib import Path
from types import MappingProxyType
from typing import Callable, Dict, List, Mapping, NamedTuple, Tuple, Union

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from rich.progress import track

from .scenes import CLASSES, Instance, Scene, draw_scene

# Seeds do not overlap: no validation image is used in training.
SPLITS = {'train': (0, 1200), 'val': (1_000_000, 120)}  # first seed, number of images
RECIPE = 2  # raise it with every change of what is drawn: files of another recipe are replaced
_STAMP = 'made_by.json'


def make_shapes(root: str) -> Path:
    """Generate the shapes dataset in ``root``, unless it is there and complete.

    Images are PNG files in ``train/`` and ``val/``. Annotations for detection are in COCO's format,
    in ``annotations/instances_{train,val}.json``, with boxes, polygons and, for crowds, run-length
    masks; label maps for segmentation are in ``labels/{train,val}/`` (:func:`label_map`). The files
    are always the same, byte for byte. The folder appears complete or not at all, so several
    processes may call this at once.

    Args:
        root: Folder of the dataset, such as ``data/shapes``.

    Returns:
        The folder.

    Raises:
        FileExistsError: For a folder with other files; nothing in it is changed.
    """
    return generate(root, Recipe('shapes', RECIPE, SPLITS, _make_split))


class Recipe(NamedTuple):
    """How a dataset is generated.

    Attributes:
        kind: What it is called.
        version: Raised with every change of what is drawn.
        splits: First seed and number of images of each.
        make_split: Writes a split; called with a folder, name, first seed and number of images.
        settings: What else the images depend on. Default nothing.
    """
    kind: str
    version: int
    splits: Mapping[str, Tuple[int, int]]
    make_split: Callable[[Path, str, int, int], None]
    settings: Mapping[str, int] = MappingProxyType({})

    @property
    def stamp(self) -> Dict:
        """What a complete folder says of itself."""
        stamp = dict(self.settings, recipe=self.version, splits=self.splits)
        return json.loads(json.dumps(
            stamp if self.kind == 'shapes' else dict(stamp, kind=self.kind)))


def generate(root: Union[str, Path], recipe: Recipe) -> Path:
    """Generate a dataset in ``root``, unless it is there and complete; see :func:`make_shapes`."""
    root = Path(root)
    if holds_other_files(root, recipe.kind):
        raise FileExistsError(f'root={str(root)!r}: contains files that are not the {recipe.kind} '
                              'dataset. Give an empty or new folder')
    if (root / _STAMP).is_file():
        if json.loads((root / _STAMP).read_text()) == recipe.stamp:
            return root
        shutil.rmtree(root, ignore_errors=True)  # ours, of another version of the recipe
    root.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f'.{root.name}-', dir=root.parent))
    try:
        print(f'Generating the {recipe.kind} dataset in {root} '
              f'({sum(n for _, n in recipe.splits.values())} images, once)')
        for split, (first_seed, count) in recipe.splits.items():
            recipe.make_split(building, split, first_seed, count)
        (building / _STAMP).write_text(json.dumps(recipe.stamp))
        building.chmod(0o755)
        try:
            if root.exists():
                root.rmdir()
            building.rename(root)
        except OSError:
            if not (root / _STAMP).is_file():  # unless another process was first
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return root


def holds_other_files(root: Union[str, Path], kind: str = 'shapes') -> bool:
    """Whether a folder has files and is no such dataset, so that none can be generated there."""
    root = Path(root)
    if (root / _STAMP).is_file():
        return json.loads((root / _STAMP).read_text()).get('kind', 'shapes') != kind
    return root.exists() and (root.is_file() or any(root.iterdir()))


def coco_annotation(instance: Instance) -> Dict:
    """An instance in COCO's format: category, box (x, y, w, h), area, segmentation; in pixels."""
    mask = instance.mask
    ys, xs = np.nonzero(mask)
    box = [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
    return dict(category_id=instance.label + 1, iscrowd=int(instance.is_crowd),
                bbox=[int(v) for v in box], area=int(mask.sum()),
                segmentation=_run_lengths(mask) if instance.is_crowd else _polygons(mask))


def label_map(scene: Scene) -> np.ndarray:
    """(H, W) uint8: 0 for the ground, 1 + label for a shape, crowds too."""
    labels = np.zeros(scene.image.shape[:2], np.uint8)
    for instance in scene.instances:
        labels[instance.mask] = 1 + instance.label
    return labels


def _make_split(root: Path, split: str, first_seed: int, count: int) -> None:
    (root / split).mkdir()
    (root / 'labels' / split).mkdir(parents=True)
    (root / 'annotations').mkdir(exist_ok=True)
    images: List[Dict] = []
    annotations: List[Dict] = []
    for image_id in track(range(1, count + 1), description=f'{split:>5}', transient=True):
        scene: Scene = draw_scene(first_seed + image_id)
        name = f'{image_id:06d}.png'
        for path, picture in ((root / split / name, scene.image),
                              (root / 'labels' / split / name, label_map(scene))):
            if not cv2.imwrite(str(path), picture):
                raise OSError(f'could not write {path}')
        images.append(dict(id=image_id, file_name=name, height=scene.image.shape[0],
                           width=scene.image.shape[1]))
        for instance in scene.instances:
            annotations.append(dict(id=len(annotations) + 1, image_id=image_id,
                                    **coco_annotation(instance)))
    (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(dict(
        info=dict(description=f'fastervit_mm shapes, {split}'), images=images,
        annotations=annotations,
        categories=[dict(id=i + 1, name=name, supercategory='shape')
                    for i, name in enumerate(CLASSES)])))


def _polygons(mask: np.ndarray) -> List[List[float]]:
    # OpenCV's contours run through the centres of border pixels, half a pixel inside the edge; in a
    # mask of eight times the size, a sixteenth. Holes are filled, as in COCO's own polygons.
    scale = 8
    ys, xs = np.nonzero(mask)
    top, left = ys.min(), xs.min()
    cut = mask[top:ys.max() + 1, left:xs.max() + 1].astype(np.uint8)
    fine = cv2.resize(cut, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [((c.reshape(-1, 2) + 0.5) / scale + (left, top)).round(2).reshape(-1).tolist()
            for c in contours]


def _run_lengths(mask: np.ndarray) -> Dict:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(size=encoded['size'], counts=encoded['counts'].decode())
