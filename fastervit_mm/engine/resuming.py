"""Training that goes on after a stop as if there had been none.

What is random in a training step, in the network and in the data, is a function of the seed, the
process and the iteration. So nothing has to be kept of random states, and a run that resumes, from
whichever checkpoint, draws what the uninterrupted run would have drawn.
"""
import random
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, get_rank, is_main_process, master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import DataLoader, Sampler

from .checkpoints import whole_file

_MODEL, _DATA = 0, 1  # streams of random numbers


class Draw(int):
    """An index into a dataset, with the numbers that decide what is random in that sample."""

    def __new__(cls, index: int, entropy: Tuple[int, ...]):
        draw = super().__new__(cls, index)
        draw.entropy = entropy
        return draw

    def __reduce__(self):
        return Draw, (int(self), self.entropy)


class Draws(Sampler):
    """A batch sampler whose indices are :class:`Draw`; it can begin in the middle.

    Args:
        batches: The batch sampler.
        seed: Of the run.

    Attributes:
        skip: How many batches the next iteration leaves out; nothing is loaded for them.
    """

    def __init__(self, batches: Sampler, seed: int):
        self.batches, self.seed, self.skip = batches, seed, 0

    def __iter__(self) -> Iterator[List[Draw]]:
        skip, self.skip = self.skip, 0
        rank, epoch = get_rank(), getattr(self.sampler, 'epoch', 0)
        if self.endless:
            # mmengine's InfiniteSampler goes on where the last iteration was, or ends with it.
            self.sampler.indices = self.sampler._indices_of_rank()
        for number, batch in enumerate(islice(self.batches, skip, None), skip):
            yield [Draw(index, (_DATA, self.seed, rank, epoch, number, place))
                   for place, index in enumerate(batch)]

    @property
    def endless(self) -> bool:
        """Whether this is one long epoch, as of mmengine's and mmdet's endless samplers."""
        return hasattr(self.sampler, '_indices_of_rank')

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name: str) -> Any:
        if name == 'batches':  # not there yet, as in a copy
            raise AttributeError(name)
        return getattr(self.batches, name)  # sampler, batch_size, drop_last


class SeededDataset:
    """A dataset in which what is random in a sample depends on its :class:`Draw` alone.

    It passes for the dataset itself, in ``isinstance`` too.
    """

    def __init__(self, dataset: Any):
        self.__dict__['dataset'] = dataset

    def __getitem__(self, index: Union[int, Draw]) -> Any:
        if not isinstance(index, Draw):
            return self.dataset[index]
        with _seeded(index.entropy):
            return self.dataset[int(index)]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)  # such as another pipeline, from a hook of mmdet

    def __reduce__(self):
        return SeededDataset, (self.dataset,)

    @property
    def __class__(self):
        return type(self.dataset)


def reproducible(loader: DataLoader, seed: int) -> DataLoader:
    """The same data loader with :class:`Draws` and a :class:`SeededDataset`."""
    if loader.batch_sampler is None:
        return loader
    same = ('num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn',
            'multiprocessing_context', 'prefetch_factor', 'persistent_workers',
            'pin_memory_device')
    return DataLoader(SeededDataset(loader.dataset),
                      batch_sampler=Draws(loader.batch_sampler, seed),
                      **{name: getattr(loader, name) for name in same})


def _seeds(entropy: Sequence[int]) -> List[int]:
    return np.random.SeedSequence(entropy).generate_state(3).tolist()


@contextmanager
def _seeded(entropy: Sequence[int]) -> Iterator[None]:
    """Random numbers on the CPU that depend on ``entropy``; those outside go on as before."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    one, two, three = _seeds(entropy)
    random.seed(one)
    np.random.seed(two)
    torch.default_generator.manual_seed(three)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class _Resumable:
    """What both loops have in common."""

    def __init__(self, runner: Runner, dataloader: Union[DataLoader, dict], *args, **kwargs):
        if isinstance(dataloader, dict):
            different = runner._randomness_cfg.get('diff_rank_seed', False)
            dataloader = reproducible(
                runner.build_dataloader(dataloader, runner.seed, different), runner.seed)
        super().__init__(runner, dataloader, *args, **kwargs)

    def run_iter(self, *args) -> None:
        one, two, three = _seeds((_MODEL, self.runner.seed, get_rank(), self._iter))
        random.seed(one)
        np.random.seed(two)
        torch.manual_seed(three)
        super().run_iter(*args)


@LOOPS.register_module()
class ResumableEpochLoop(_Resumable, EpochBasedTrainLoop):
    """mmengine's loop over epochs, which can also resume within one.

    Each iteration has random numbers of its own: see this module.
    """

    def run_epoch(self) -> None:
        """The rest of an epoch: all of it, unless training resumed in its middle."""
        done = self._iter - self._epoch * len(self.dataloader)
        if not 0 <= done < len(self.dataloader):
            self.runner.logger.warning(
                f'Iteration {self._iter} is not in epoch {self._epoch + 1}, which has '
                f'{len(self.dataloader)} iterations: the checkpoint is of another batch size, '
                'number of processes or dataset. The epoch starts at its beginning')
            self._iter = self._epoch * len(self.dataloader)
            done = 0
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        self.dataloader.batch_sampler.skip = done
        for idx, data_batch in enumerate(self.dataloader, done):
            self.run_iter(idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class ResumableIterLoop(_Resumable, IterBasedTrainLoop):
    """mmengine's loop over iterations, which resumes without loading what was trained on.

    Each iteration has random numbers of its own: see this module.
    """

    def run(self) -> None:
        if self._iter:
            self.dataloader_iterator = _Forward(self.dataloader, self._iter)
        return super().run()


class _Forward:
    """An iterator over batches, for ever; the first ones are None and cost nothing."""

    def __init__(self, dataloader: DataLoader, skip: int):
        self.dataloader, self.skipped, self.left = dataloader, skip, skip
        self.iterator = None

    def __next__(self) -> Any:
        if self.left:
            self.left -= 1
            return None
        if self.iterator is None:
            draws = self.dataloader.batch_sampler
            epoch, skip = (0, self.skipped) if draws.endless else divmod(self.skipped, len(draws))
            if hasattr(draws.sampler, 'set_epoch'):
                draws.sampler.set_epoch(epoch)
            draws.skip = skip
            self.iterator = _InfiniteDataloaderIterator(self.dataloader)
            self.iterator._epoch = epoch
        return next(self.iterator)

    def skip_iter(self, number: int) -> None:
        """Leave out some at once, as OneDL's mmengine asks; OpenMMLab's takes one by one."""
        self.left -= number


@HOOKS.register_module()
class MissedValidationHook(Hook):
    """Make up for a validation that a stop cut short, where training resumes behind it.

    A checkpoint is saved before the validation. Without this the metrics of a run that is stopped
    in one would be missing, those of its end too. Which was the last one to end is said in
    ``work_dir/last_validation``.
    """
    priority = 'LOWEST'  # when the other hooks are ready, and when they are done

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        now, end = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
        between = not by_epoch or loop.iter == loop.epoch * len(loop.dataloader)
        if runner.val_loop is None or not now or not between or self._done(runner) == loop.iter:
            return
        loop._decide_current_val_interval()
        if now >= loop.val_begin and (now % loop.val_interval == 0 or now == end):
            runner.val_loop.run()

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: Optional[Dict[str, float]] = None) -> None:
        if isinstance(runner._train_loop, BaseLoop):  # not a validation alone
            with whole_file(Path(runner.work_dir) / 'last_validation') as part:
                part.write_text(str(runner.iter))

    def _done(self, runner: Runner) -> Optional[int]:
        """Iterations before the last whole validation; the same answer in all processes."""
        path, found = Path(runner.work_dir) / 'last_validation', [None]
        if is_main_process() and path.is_file() and (text := path.read_text()).isdecimal():
            found = [int(text)]
        broadcast_object_list(found)
        return found[0]


def make_resumable(cfg: Any) -> None:
    """Let a config train in these loops where it asks for mmengine's own."""
    loop = cfg.train_cfg
    kind = loop.get('type')
    if kind is None and 'by_epoch' in loop:
        kind = 'EpochBasedTrainLoop' if loop.pop('by_epoch') else 'IterBasedTrainLoop'
    kind = getattr(kind, '__name__', kind)
    loop.type = dict(EpochBasedTrainLoop='ResumableEpochLoop',
                     IterBasedTrainLoop='ResumableIterLoop').get(kind, loop.get('type'))
