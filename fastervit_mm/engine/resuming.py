"""Bit-exact resuming.

Random numbers of a training step, in the network and in the data, are a function of the seed, the
process and the iteration. So checkpoints need no random states, and a run that resumes from any of
them draws what the uninterrupted run would have drawn.
"""
import random
from collections import deque
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, get_rank, is_main_process, master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch import nn
from torch.utils.data import DataLoader, Sampler

from ..models import type_name
from .checkpoints import whole_file

_MODEL, _DATA, _ORDER = range(3)  # streams of random numbers
_BEGUN = 'epoch_begun_at'  # iteration, in a checkpoint's message hub


class Draw(NamedTuple):
    """Index into a dataset, with the seed of that sample."""
    index: Any  # a number or, from mmdet's TrackImgSampler, a video and a frame
    entropy: Tuple[int, ...]


class Draws(Sampler):
    """Batch sampler of :class:`Draw` that can begin mid-epoch.

    Args:
        batches: The batch sampler.
        seed: Of the run.
    """

    def __init__(self, batches: Sampler, seed: int):
        self.batches, self.seed, self.begun = batches, seed, None
        self.length = len(batches)  # once: mmdet's MultiDataAspectRatioBatchSampler draws here

    def __iter__(self) -> Iterator[List[Draw]]:
        rank, epoch = get_rank(), getattr(self.sampler, 'epoch', 0)
        begin, drawn = self.begun or (0, self._drawn(epoch))
        self.begun = None
        for number, batch in enumerate(drawn, begin):
            yield [Draw(index, (_DATA, self.seed, rank, epoch, number, place))
                   for place, index in enumerate(batch)]

    def leave_out(self, number: int, epoch: int = 0) -> int:
        """Skip batches without loading them.

        Args:
            number: Batches from the beginning of an epoch; it may have fewer.
            epoch: The epoch. Default 0.

        Returns:
            The epoch of the next batch.
        """
        for earlier in range(epoch):  # CustomSampleSizeSampler carries samples over to the next
            self._set_epoch(earlier)
            deque(self.sampler, maxlen=0)
        self._set_epoch(epoch)
        place, drawn = 0, self._drawn(epoch)
        for _ in range(number):
            if next(drawn, None) is None:
                epoch += 1
                self._set_epoch(epoch)
                place, drawn = 0, self._drawn(epoch)
                next(drawn)
            place += 1
        self.begun = place, drawn
        return epoch

    def _set_epoch(self, epoch: int) -> None:
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def _drawn(self, epoch: int) -> Iterator[List[Any]]:
        """Draw an epoch's batches, with global random numbers seeded.

        mmdet's GroupMultiSourceSampler uses those.
        """
        batches = iter(self.batches)
        for number in count():
            with _seeded((_ORDER, self.seed, epoch, number)):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def __len__(self) -> int:
        return self.length

    def __getattr__(self, name: str) -> Any:
        if name == 'batches':  # not yet set, as in a copy
            raise AttributeError(name)
        return getattr(self.batches, name)  # sampler, batch_size, drop_last


class SeededDataset:
    """Dataset proxy that seeds each sample by its :class:`Draw`.

    It passes for the dataset itself, in ``isinstance`` too.
    """
    __getitems__ = None  # else PyTorch would ask the dataset for a whole batch

    def __init__(self, dataset: Any):
        self.__dict__['dataset'] = dataset

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, Draw):
            return self.dataset[index]
        with _seeded(index.entropy):
            return self.dataset[index.index]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)  # such as another pipeline, set by a hook of mmdet

    def __reduce__(self):
        return SeededDataset, (self.dataset,)

    @property
    def __class__(self):
        return type(self.dataset)


class LateLoader(DataLoader):
    """Data loader whose workers start at its first batch.

    So a loop can be built before its first iteration is known.
    """

    def __iter__(self) -> Iterator[Any]:
        # PyTorch draws here too; so a seed gives the same weights as in mmengine's own loop.
        torch.empty((), dtype=torch.int64).random_()
        return self._late()

    def _late(self) -> Iterator[Any]:
        yield from super().__iter__()


def reproducible(loader: DataLoader, seed: int) -> DataLoader:
    """Copy a data loader with :class:`Draws` and a :class:`SeededDataset`."""
    if loader.batch_sampler is None:  # batch_size=None: samples are batches
        return loader
    same = ('num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn',
            'multiprocessing_context', 'prefetch_factor', 'persistent_workers',
            'pin_memory_device')
    return LateLoader(SeededDataset(loader.dataset),
                      batch_sampler=Draws(loader.batch_sampler, seed),
                      **{name: getattr(loader, name) for name in same})


def _seed(entropy: Sequence[int], seed_torch: Callable) -> None:
    one, two, three = np.random.SeedSequence(entropy).generate_state(3).tolist()
    random.seed(one)
    np.random.seed(two)
    seed_torch(three)


@contextmanager
def _seeded(entropy: Sequence[int]) -> Iterator[None]:
    """Context with seeded CPU random numbers; restores their states."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    _seed(entropy, torch.default_generator.manual_seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class _Resumable:
    """Base of both loops."""

    def __init__(self, runner: Runner, dataloader: Union[DataLoader, dict], *args, **kwargs):
        different = runner._randomness_cfg.get('diff_rank_seed', False)
        dataloader = reproducible(
            runner.build_dataloader(dataloader, runner.seed, different), runner.seed)
        super().__init__(runner, dataloader, *args, **kwargs)

    def run_iter(self, *args) -> None:
        _seed((_MODEL, self.runner.seed, get_rank(), self._iter), torch.manual_seed)
        super().run_iter(*args)


@LOOPS.register_module()
class ResumableEpochLoop(_Resumable, EpochBasedTrainLoop):
    """mmengine's loop over epochs; resumes also within one.

    Random numbers: see the module's docstring.

    Attributes:
        done: Iterations of the current epoch trained before this run.
    """
    done = 0

    def run(self) -> nn.Module:
        draws = self.dataloader.batch_sampler
        if self._iter and isinstance(draws, Draws):
            # Epochs differ in length: AspectRatioBatchSampler may drop more than it says.
            self.done = self._iter - self.runner.message_hub.runtime_info.get(
                _BEGUN, self._epoch * len(draws))
            if not 0 <= self.done < len(draws):
                self.runner.logger.warning(
                    f'Iteration {self._iter} is not in epoch {self._epoch + 1}, which has '
                    f'{len(draws)} iterations: the checkpoint is of another batch size, '
                    'number of processes or dataset. The epoch starts at its beginning')
                self._iter = self._epoch * len(draws)
                self.done = 0
            draws.leave_out(self.done, self._epoch)
        return super().run()

    def run_epoch(self) -> None:
        """Train an epoch, or its rest after resuming."""
        self.runner.message_hub.update_info(_BEGUN, self._iter - self.done)
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for idx, data_batch in enumerate(self.dataloader, self.done):
            self.run_iter(idx, data_batch)
        self.done = 0
        self.runner.message_hub.update_info(_BEGUN, self._iter)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class ResumableIterLoop(_Resumable, IterBasedTrainLoop):
    """mmengine's loop over iterations; resumes without loading past batches.

    Random numbers: see the module's docstring.
    """

    def run(self) -> nn.Module:
        if self._iter and isinstance(self.dataloader.batch_sampler, Draws):
            self.dataloader_iterator = _Forward(self.dataloader, self._iter)
        return super().run()


class _Forward:
    """Infinite iterator that skips without loading; skipped batches are None."""

    def __init__(self, dataloader: DataLoader, skip: int):
        self.dataloader, self.skipped, self.left = dataloader, skip, skip
        self.iterator = None

    def __next__(self) -> Any:
        if self.left:
            self.left -= 1
            return None
        if self.iterator is None:
            epoch = self.dataloader.batch_sampler.leave_out(self.skipped)
            self.iterator = _InfiniteDataloaderIterator(self.dataloader)
            self.iterator._epoch = epoch
        return next(self.iterator)

    def skip_iter(self, number: int) -> None:
        """Skip several batches; OneDL's mmengine calls it."""
        self.left -= number


@HOOKS.register_module()
class MissedValidationHook(Hook):
    """Rerun an interrupted validation.

    A checkpoint is saved before the validation, so a run stopped during one would never get its
    metrics. ``work_dir/last_validation`` holds the iteration of the last complete validation.
    """
    priority = 'LOWEST'  # after the other hooks

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        now, end = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
        between = not getattr(loop, 'done', 0)
        if runner.val_loop is None or not now or not between or (
                last_validation(runner) == loop.iter):
            return
        loop._decide_current_val_interval()
        if now >= loop.val_begin and (now % loop.val_interval == 0 or now == end):
            runner.val_loop.run()

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: Optional[Dict[str, float]] = None) -> None:
        if isinstance(runner._train_loop, BaseLoop):  # not a validation alone
            with whole_file(Path(runner.work_dir) / 'last_validation') as part:
                part.write_text(str(runner.iter))


def last_validation(runner: Runner) -> Optional[int]:
    """Iteration of the last complete validation, equal in all processes."""
    path, found = Path(runner.work_dir) / 'last_validation', [None]
    if is_main_process() and path.is_file() and (text := path.read_text()).isdecimal():
        found = [int(text)]
    broadcast_object_list(found)
    return found[0]


def make_resumable(cfg: Any) -> None:
    """Replace mmengine's training loops in a config by these."""
    loop = cfg.train_cfg
    kind = loop.get('type')
    if kind is None and 'by_epoch' in loop:
        kind = 'EpochBasedTrainLoop' if loop.pop('by_epoch') else 'IterBasedTrainLoop'
    name = kind and type_name(dict(type=kind))
    loop.type = dict(EpochBasedTrainLoop='ResumableEpochLoop',
                     IterBasedTrainLoop='ResumableIterLoop').get(name, kind)
