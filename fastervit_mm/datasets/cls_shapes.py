"""The shapes dataset for mmpretrain: one shape a picture."""
import json
from pathlib import Path
from typing import Dict, List

from mmcv.transforms import BaseTransform
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS, TRANSFORMS

from .scenes import CLASSES
from .shapes import holds_other_files, make_shapes


@DATASETS.register_module()
class ShapesClsDataset(BaseDataset):
    """Each shape of the shapes dataset, cut out, with its class; crowds are left out.

    The dataset is generated in ``data_root`` if it is not there. ``CropBox`` in the pipeline cuts
    the shape out of its scene.

    Args:
        ann_file: ``'annotations/instances_train.json'`` or ``'annotations/instances_val.json'``.
        data_prefix: Folder of that split's images, ``'train'`` or ``'val'``.
        data_root: Folder of the dataset. Default ``'data/shapes'``.
        **kwargs: Arguments of mmpretrain's ``BaseDataset``.
    """

    METAINFO = dict(classes=CLASSES)
    makes_itself = True  # its files need not exist before it is built
    holds_other_files = staticmethod(holds_other_files)

    def __init__(self, ann_file: str, data_prefix: str, data_root: str = 'data/shapes', **kwargs):
        make_shapes(data_root)
        super().__init__(ann_file=ann_file, data_prefix=data_prefix, data_root=data_root, **kwargs)

    def load_data_list(self) -> List[Dict]:
        """A dict for each shape: ``img_path``, ``box`` (x, y, w, h; pixels) and ``gt_label``."""
        content = json.loads(Path(self.ann_file).read_text())
        names = {image['id']: image['file_name'] for image in content['images']}
        return [dict(img_path=str(Path(self.img_prefix) / names[one['image_id']]),
                     box=one['bbox'], gt_label=one['category_id'] - 1)
                for one in content['annotations'] if not one['iscrowd']]


@TRANSFORMS.register_module()
class CropBox(BaseTransform):
    """Cut a square around ``box`` out of an image: its longer side, and a margin.

    Args:
        margin: On each side, relative to the longer side. What lies outside the image is left out.
            Default 0.15.
    """

    def __init__(self, margin: float = 0.15):
        self.margin = margin

    def transform(self, results: Dict) -> Dict:
        """Cut ``img``, and set ``img_shape``."""
        x, y, w, h = results['box']
        half = max(w, h) * (0.5 + self.margin)
        left, top = max(int(x + w / 2 - half), 0), max(int(y + h / 2 - half), 0)
        right, bottom = int(x + w / 2 + half) + 1, int(y + h / 2 + half) + 1
        results['img'] = results['img'][top:bottom, left:right]
        results['img_shape'] = results['img'].shape[:2]
        return results
