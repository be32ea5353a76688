"""The text of a config, piece by piece."""
import os
import pprint
import textwrap
from pathlib import Path
from typing import Any, Mapping, Sequence

from ..backbone.variants import VARIANTS
from ..config_files import read_config
from ..datasets.folders import DataError

SMALL = 'small'


class Lines(list):
    """Lines of a config; a reason comes before what it explains, wrapped."""

    def because(self, reason: str, indent: int = 0) -> None:
        start = ' ' * indent + '# '
        reason = reason.replace('{{', '{ {').encode(errors='backslashreplace').decode()
        self.extend(textwrap.wrap(reason, 100, initial_indent=start, subsequent_indent=start,
                                  break_on_hyphens=False, break_long_words=False))

    def add(self, text: str) -> None:
        self.extend(text.strip('\n').split('\n'))

    def __str__(self) -> str:
        return '\n'.join(self) + '\n'


def add_schedule(lines: Lines, length: str, number: int, small: bool, by_epoch: bool) -> None:
    """The length of training, its learning rate and checkpoints.

    Args:
        lines: Of the config.
        length: How long it is, in words.
        number: Epochs, or else iterations.
        small: Whether the network is trained from scratch.
        by_epoch: Whether it is a detector, which is trained by epochs.
    """
    end, rate, best = ('max_epochs', '1e-4', 'coco/bbox_mAP') if by_epoch else (
        'max_iters', '6e-5', 'mIoU')
    interval = max(1, number // 8)
    scaling = '' if small else '\nauto_scale_lr = dict(enable=True)'
    warmup, factor = (50, 0.01) if small else (500, 0.001)
    decay = ("dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=max_epochs,\n"
             '         convert_to_iter_based=True)' if by_epoch else
             f"dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin={warmup}, "
             'end=max_iters)')
    lines.append('')
    lines.because(f'{length}. More help if the score still rises at the end' + (
        '.' if small else f'; the learning rate, {rate} for 16 images, is scaled to your batch.'))
    lines.add(f"""
{end} = {number}
train_cfg = dict({end}={end}, val_interval={interval})
param_scheduler = [
    dict(type='LinearLR', start_factor={factor}, by_epoch=False, begin=0, end={warmup}),
    {decay},
]{scaling}
default_hooks = dict(checkpoint=dict(
    interval={interval}, max_keep_ckpts=2, save_best='{best}'))""")


def check_arch(arch: str) -> None:
    if arch != SMALL and arch not in VARIANTS:
        raise ValueError(f'arch={arch!r}: give {SMALL!r} or a published variant, one of '
                         f'{", ".join(VARIANTS)}')


def base_config(name: str, arch: str) -> str:
    """Name of this package's config for a network, such as ``cascade_fvit_small``."""
    return name if arch == '2' else f'{name}_{arch}'.replace('-', '_')


def inside(path: Path, root: Path, folder: bool = False) -> str:
    """A path as a config with ``data_root`` has it."""
    path = path.absolute()
    if path == root:
        return ''
    end = '/' if folder else ''
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix() + end


def quoted(value: Any) -> str:
    """A literal for a config, in which mmengine substitutes nothing."""
    return repr(value).replace('{{', '{\\x7b')


def names_of(names: Sequence[str]) -> str:
    """A tuple of names for a config, which is broken between names alone."""
    text = quoted(tuple(names))
    if len(text) <= 88:
        return text
    text = pprint.pformat(list(names), width=95, compact=True)[1:-1].replace('{{', '{\\x7b')
    return '(\n    ' + text.replace('\n', '\n   ') + ',\n)'


def write_config(out: Path, text: str, meant: Mapping[str, Any]) -> None:
    """Save a config, if reading it gives what was meant.

    Args:
        out: The file to write.
        text: Its text.
        meant: Values that it must have, by their dotted names.

    Raises:
        DataError: For a value that is another when the config is read; nothing is written then.
    """
    trial = out.with_name(f'.{out.stem}.trial.py')
    try:
        trial.write_text(text, encoding='utf-8')
        cfg = read_config(trial)
        for name, value in meant.items():
            found = cfg
            for part in name.split('.'):
                found = found[part]
            if found != value:
                raise DataError(f'{name}={value!r}: a config cannot hold it, {found!r} would be '
                                'read. Use another name')
        os.replace(trial, out)
    finally:
        trial.unlink(missing_ok=True)


def few(items: Sequence, most: int = 6) -> str:
    more = f' and {len(items) - most} more' if len(items) > most else ''
    return ', '.join(map(str, items[:most])) + more


def count(number: int, one: str, many: str) -> str:
    return f'{number} {one if number == 1 else many}'
