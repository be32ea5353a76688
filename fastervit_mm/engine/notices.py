"""Stopping on a scheduler's signal or a non-finite loss."""
import os
import signal
import threading
from functools import partial
from typing import Any, Callable, Optional, Sequence

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from .checkpoints import INTERRUPTED, newest_checkpoint, point_to

REQUEUE = 75
"""Exit status of a run that stopped on a signal and can be resumed (``EX_TEMPFAIL``)."""

_AGREEMENT = 10  # steps between agreements of several processes
_PATIENCE = 10  # non-finite losses in a row, with a loss scale

SIGNALS = (signal.SIGINT, signal.SIGTERM,
           *([signal.SIGUSR1] if hasattr(signal, 'SIGUSR1') else []))


@HOOKS.register_module()
class NoticeHook(Hook):
    """Save and exit with status 75 on SIGTERM or SIGUSR1.

    A single process saves after its current step, or at once during validation. Several processes
    agree on a step, every 10 steps. Accumulated gradients are applied first. The checkpoint is
    ``interrupted.pth``; the next checkpoint removes it. Ctrl-C (SIGINT) also saves, and raises
    KeyboardInterrupt, whose message names the checkpoint; a second Ctrl-C stops at once.
    """
    priority = 'LOWEST'  # after the regular checkpoint of the same iteration

    def __init__(self):
        self.notice: Optional[int] = None
        self.before: dict = {}

    def before_train(self, runner: Runner) -> None:
        if threading.current_thread() is not threading.main_thread():
            return  # Python delivers signals only to the main thread
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # SIGINT is ignored in the background
                self.before[number] = signal.signal(number, self._note)

    def after_train(self, runner: Runner) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        self.notice = number
        if number == signal.SIGINT:
            signal.signal(number, self.before[number])

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        now = runner.iter + 1
        if (isinstance(runner.train_loop, EpochBasedTrainLoop)
                and batch_idx + 1 == len(runner.train_dataloader)):
            return  # stop at the epoch's end instead, after its schedules and checkpoint
        steps = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        if now % steps == 0 and self._told(now // steps):
            self._stop(runner, runner.epoch, now)

    def after_train_epoch(self, runner: Runner) -> None:
        if isinstance(runner.train_loop, EpochBasedTrainLoop) and self._told(0):
            self._stop(runner, runner.epoch + 1, runner.iter)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                       outputs: Optional[Sequence] = None) -> None:
        # Processes are not in step here; a scheduler's signal reaches all of them.
        if self.notice is not None and get_world_size() == 1:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):
                    hook._swap_ema_parameters()  # back to the trained weights
            self._stop(runner, runner.epoch, runner.iter)

    def _told(self, now: int) -> bool:
        """Whether any process has been signalled, alike in all processes."""
        if get_world_size() == 1:
            return self.notice is not None
        if now % _AGREEMENT:
            return False
        told = torch.tensor(self.notice or 0)
        all_reduce(told, 'max')
        self.notice = int(told) or None
        return self.notice is not None

    def _stop(self, runner: Runner, epoch: int, now: int) -> None:
        hook = next((h for h in runner.hooks if isinstance(h, CheckpointHook)), None)
        path = hook and hook.last_ckpt
        if getattr(runner, 'saved_at', None) != now:
            folder = hook.out_dir if hook else runner.work_dir
            path = os.path.join(folder, INTERRUPTED)
            runner.save_checkpoint(folder, INTERRUPTED, meta=dict(epoch=epoch, iter=now))
            if runner.rank == 0:
                point_to(path, runner.work_dir)
        where = f'at iteration {now}; saved in {path}'
        if self.notice == signal.SIGINT:
            raise KeyboardInterrupt(f'stopped {where}')
        runner.logger.warning(f'Stopped on {signal.Signals(self.notice).name} {where}. Go on with '
                              f'--resume; the exit status is {REQUEUE}')
        raise SystemExit(REQUEUE)


def shield_workers(loader: DataLoader) -> None:
    """Let a data loader's workers survive a scheduler's signal.

    Slurm and torchrun signal whole groups of processes, and without its workers a training fails
    before it has saved. They still end with the process that started them, and on its signal.
    Workers that are spawned, not forked as mmengine's are by default, have threads that this does
    not reach.
    """
    if hasattr(signal, 'sigwaitinfo'):
        loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)


def _start_worker(init: Optional[Callable[[int], None]], number: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS[1:])
    threading.Thread(target=_wait_for_parents_signal, daemon=True).start()
    if init is not None:
        init(number)


def _wait_for_parents_signal() -> None:
    while signal.sigwaitinfo(SIGNALS[1:]).si_pid != os.getppid():
        pass
    os._exit(0)


class LossError(RuntimeError):
    """Non-finite loss; the message names the last finite checkpoint."""


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop a run on a non-finite loss, before saving.

    With a loss scale, as float16 has, the optimizer skips steps whose gradients overflow; the run
    stops only after 10 such losses in a row.

    Raises:
        LossError: With the iteration, the files of the batch and the newest checkpoint whose
            weights are finite.
    """

    in_a_row = 0

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: Optional[dict] = None) -> None:
        loss = (outputs or {}).get('loss')  # the sum, so that one synchronization suffices
        if loss is None or torch.as_tensor(loss).isfinite().all():
            self.in_a_row = 0
            return
        self.in_a_row += 1
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        if self.in_a_row < (_PATIENCE if scaler is not None and scaler.is_enabled() else 1):
            return
        bad = {name: float(value) for name, value in outputs.items()
               if 'loss' in name and not torch.as_tensor(value).isfinite().all()}
        samples = data_batch.get('data_samples', ()) if isinstance(data_batch, dict) else ()
        files = [str(getattr(sample, 'img_path', 'a file without a name')) for sample in samples]
        values = ', '.join(f'{name}={value}' for name, value in sorted(bad.items()))
        last = newest_checkpoint(runner.work_dir, finite=True)
        raise LossError(
            f'{values} at iteration {runner.iter + 1} of {runner.max_iters} (epoch '
            f'{runner.epoch + 1}): training has stopped without saving. Images of the '
            f'batch: {", ".join(files) or "unknown"}. ' + (
                f'The last good checkpoint is {last}. ' if last else
                'There is no earlier checkpoint. ') +
            'Look at the annotations of these images; else train with a lower learning rate, with '
            'optim_wrapper.clip_grad, or in float32')
