"""The long-range dataset for mmseg, and its metric."""
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Dict, List, Sequence

from mmseg.datasets import BaseSegDataset
from mmseg.evaluation import IoUMetric
from mmseg.registry import DATASETS, METRICS

from .long_range import (
    CLASSES,
    PALETTE,
    SIZE,
    accuracy_over_distance,
    inside,
    make_long_range,
    read_discs,
    said_of,
)
from .shapes import holds_other_files


@DATASETS.register_module()
class LongRangeDataset(BaseSegDataset):
    """mmseg's ``BaseSegDataset`` of the long-range task, generated in ``data_root`` if absent.

    Beside mmseg's own keys an image has ``discs``, the x, y and distance of each in pixels, which
    ``PackSegInputs`` passes on to the metric where its ``meta_keys`` name them. No transform moves
    them: the metric is for images as they are.

    Args:
        data_root: Folder of the dataset. Default ``'data/long_range'``.
        size: Side of the images, in pixels, at least 128. Default 128.
        **kwargs: Arguments of ``BaseSegDataset``.
    """

    METAINFO = dict(classes=CLASSES, palette=PALETTE)
    makes_itself = True  # its files need not exist before it is built
    holds_other_files = staticmethod(partial(holds_other_files, kind='long-range'))

    def __init__(self, *args, data_root: str = 'data/long_range', size: int = SIZE,
                 img_suffix: str = '.png', **kwargs):
        make_long_range(data_root, size)
        super().__init__(*args, data_root=data_root, img_suffix=img_suffix, **kwargs)

    def load_data_list(self) -> List[Dict]:
        """As ``BaseSegDataset``, with the discs of each image."""
        images = super().load_data_list()
        discs = read_discs(self.data_root, Path(self.data_prefix['img_path']).name)
        return [dict(one, discs=discs[Path(one['img_path']).name]) for one in images]


@METRICS.register_module()
class DistanceAccuracy(IoUMetric):
    """Discs whose class most of their pixels say, in per cent: all, and by distance.

    ``accuracy`` counts all discs; ``accuracy/16-36`` those from 16 to 36 pixels from the mark, and
    so on; ranges are :func:`~.long_range.edges` of the images' size.

    Args:
        **kwargs: Arguments of mmseg's ``IoUMetric`` that concern the writing of label maps.
    """

    def __init__(self, **kwargs):
        super().__init__(format_only=True, **kwargs)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep each disc's distance and whether its class is right."""
        super().process(data_batch, data_samples)  # writes label maps, where asked for
        for sample in data_samples:
            said, true = (sample[name]['data'].squeeze().cpu().numpy()
                          for name in ('pred_sem_seg', 'gt_sem_seg'))
            found = []
            for disc in sample['discs']:
                pixels = inside(disc, true.shape)
                found.append((disc[2], said_of(said[pixels]) == said_of(true[pixels]),
                              max(true.shape)))
            self.results.append(found)  # one entry an image: what is beyond their number is cut

    def compute_metrics(self, results: list) -> Dict[str, float]:
        """The accuracies, in per cent."""
        distances, right, sizes = zip(*chain.from_iterable(results))
        by_distance = accuracy_over_distance(distances, right, sizes[0])
        return {'accuracy': 100 * sum(right) / len(right),
                **{f'accuracy/{key}': 100 * value for key, value in by_distance.items()}}
