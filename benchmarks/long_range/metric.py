"""mmseg's metric of the long-range task."""
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Dict, Sequence

from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS

from .task import accuracy_over_distance, inside, majority_class, read_discs

_read = lru_cache(read_discs)


@METRICS.register_module()
class DistanceAccuracy(IoUMetric):
    """Percentage of right discs, all and by distance.

    A disc is right if most of its pixels have its class.

    ``accuracy`` counts all discs; ``accuracy/16-36`` those from 16 to 36 pixels from the mark, and
    so on; ranges are :func:`~.task.edges` of the images' size. Places of the discs are read from
    the folder that :func:`~.task.make_long_range` wrote; images must have their size there.

    Args:
        **kwargs: Arguments of mmseg's ``IoUMetric`` that concern the writing of label maps.
    """

    def __init__(self, **kwargs):
        super().__init__(format_only=True, **kwargs)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep each disc's distance and whether its class is right."""
        super().process(data_batch, data_samples)  # writes label maps, if asked
        for sample in data_samples:
            said, true = (sample[name]['data'].squeeze().cpu().numpy()
                          for name in ('pred_sem_seg', 'gt_sem_seg'))
            path, found = Path(sample['img_path']), []
            for disc in _read(path.parents[1], path.parent.name)[path.name]:
                pixels = inside(disc, true.shape)
                found.append((disc[2], majority_class(said[pixels]) == majority_class(
                    true[pixels]), max(true.shape)))
            self.results.append(found)  # one entry per image: mmengine truncates to their number

    def compute_metrics(self, results: list) -> Dict[str, float]:
        """The accuracies, in per cent."""
        distances, right, sizes = zip(*chain.from_iterable(results))
        by_distance = accuracy_over_distance(distances, right, sizes[0])
        return {'accuracy': 100 * sum(right) / len(right),
                **{f'accuracy/{key}': 100 * value for key, value in by_distance.items()}}
