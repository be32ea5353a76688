"""ImageNet-A, -R and -V2 for mmpretrain."""
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from mmpretrain.datasets import ImageNet
from mmpretrain.evaluation import Accuracy
from mmpretrain.registry import DATASETS, METRICS
from timm.data import ImageNetInfo


def class_indices(names: Sequence[str]) -> Dict[str, int]:
    """Class, from 0 to 999, of each folder's name.

    Args:
        names: Folders' names: WordNet ids such as ``'n01440764'``, or class numbers.

    Raises:
        ValueError: For a name that is neither.
    """
    known = {name: i for i, name in enumerate(ImageNetInfo().label_names())}
    known.update({str(i): i for i in range(len(known))})
    foreign = [name for name in names if name not in known]
    if foreign:
        raise ValueError(f'{len(foreign)} folders are not classes of ImageNet-1K ({foreign[:3]}): '
                         'each is named by a WordNet id such as n01440764, or a number from 0 to '
                         '999')
    return {name: known[name] for name in names}


@DATASETS.register_module()
class ImageNetFolders(ImageNet):
    """Images in folders of some of ImageNet-1K's classes.

    mmpretrain's ``ImageNet`` numbers the folders in the order of their names, which is wrong for
    200 of the classes, and for ImageNet-V2's folders ``0`` to ``999`` ("10" before "2").

    Args:
        data_root: Folder of the classes' folders.
        **kwargs: Arguments of mmpretrain's ``ImageNet``.

    Attributes:
        metainfo: With ``present``, the classes that have a folder, ascending.
    """

    def _find_samples(self) -> List[Tuple[str, int]]:
        root = Path(self.img_prefix)
        folders = class_indices(sorted(p.name for p in root.iterdir() if p.is_dir()))
        self.folder_to_idx = folders
        self._metainfo['present'] = sorted(folders.values())
        samples = [(f'{name}/{path.name}', label) for name, label in folders.items()
                   for path in sorted((root / name).iterdir()) if self.is_valid_file(path.name)]
        if not samples:
            raise ValueError(f'data_root={str(root)!r}: no image in a folder of a class; expected '
                             'n01440764/name.jpg and so on')
        return samples


@METRICS.register_module()
class SubsetAccuracy(Accuracy):
    """``Accuracy`` among the classes of :class:`ImageNetFolders`.

    As ImageNet-A and -R define it: of the 1000 scores, only those of their 200 classes count.

    Args:
        **kwargs: Arguments of ``Accuracy``.
    """

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        present = self.dataset_meta['present']
        for one in results:
            among = one['pred_score'].new_full(one['pred_score'].shape, -1.)
            among[present] = one['pred_score'][present]
            one['pred_score'] = among
        return super().compute_metrics(results)
