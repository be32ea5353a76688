"""Copy a campaign's results and pretrained backbone to the repository; write docs/results.md."""
import argparse
import json
import re
from pathlib import Path
from statistics import mean
from typing import Dict, Iterable, Iterator, List

from safetensors.torch import save_file

from fastervit_mm.weights.reading import read_checkpoint

from .carry_out import ROOT
from .parts import PRETRAINED, TASKS, networks

RESULTS, PAGE = ROOT / 'benchmarks/photographs.json', ROOT / 'docs/results.md'
Rows = Dict[str, dict]


def tables(results: Dict[str, Rows]) -> Dict[str, List[str]]:
    """Lines of each table, by its name in the page."""
    found = {}
    if 'pretrain' in results:
        row = results['pretrain']['pretrain']
        found['pretrain'] = _table(
            ['iteration', *(str(iteration) for iteration, _ in row['curve'])],
            [['top-1', *(f'{value:.1f}' for _, value in row['curve'])]])
    found['transfer'] = _table(
        ['data', 'metric', 'iterations', 'from scratch', 'pretrained', 'with `--tta`', 'minutes'],
        [line for part, rows in results.items() if part.startswith('transfer-')
         for line in _transfer(rows)])
    for part, rows in results.items():
        if part.startswith('settings-'):
            found[part] = _table(['setting', 'validation', 'difference'], _settings(rows))
    found['compare'] = _table(
        ['network', 'top-1, Imagenette', *(f'crop {size}, {title}' for size in (256, 480)
                                           for title in ('from scratch', 'pretrained'))],
        _compare(results))
    return found


def write(results: Dict[str, Rows], page: Path) -> None:
    """Replace the tables in a page, each between ``<!-- NAME -->`` and ``<!-- end -->``."""
    text = page.read_text()
    for name, lines in tables(results).items():
        table = '\n'.join([f'<!-- {name} -->', '', *lines, '', '<!-- end -->'])
        text = re.sub(f'<!-- {name} -->\n.*?<!-- end -->', table, text, flags=re.DOTALL)
    page.write_text(text)


def draw(results: Dict[str, Rows], target: Path) -> None:
    """Draw the validations of the transfers during training."""
    from matplotlib.figure import Figure
    parts = [part for part in results if part.startswith('transfer-')]
    if not parts:
        return
    figure = Figure(figsize=(3.2 * len(parts), 3), layout='constrained')
    for axis, part in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts):
        for row in results[part].values():
            start = 'pretrained' if row['start'] else 'from scratch'
            axis.plot(*zip(*row['curve']), marker='.', color='C1' if row['start'] else 'C0',
                      label=None if row['seed'] else start)
        axis.set_title(f'{row["task"]}, {TASKS[row["task"]].metric}', fontsize=9)
        axis.set_xlabel('iterations', fontsize=8)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(target, dpi=120)


def copy_backbone(checkpoint: Path, target: Path) -> None:
    """Write the backbone of a checkpoint in float16."""
    backbone = {name.removeprefix('backbone.'): tensor.contiguous() for name, tensor in
                read_checkpoint(str(checkpoint))['state_dict'].items()
                if name.startswith('backbone.')}
    save_file({name: tensor.half() if tensor.is_floating_point() else tensor
               for name, tensor in backbone.items()}, target)


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> List[str]:
    head = list(head)
    return [f'| {" | ".join(words)} |' for words in (head, ['---'] * len(head), *lines)]


def _transfer(rows: Rows) -> Iterator[List[str]]:
    task = TASKS[next(iter(rows.values()))['task']]
    scratch = [row for row in rows.values() if not row['start']]
    pretrained = [row for row in rows.values() if row['start']]
    metric = task.metric
    yield [task.title, metric.rpartition('/')[2],
           str(max(row['curve'][-1][0] for row in rows.values())),
           _values(scratch, metric) or '–', _values(pretrained, metric),
           _values(pretrained, metric, 'metrics_tta') or '–',
           f'{mean(row["minutes"] for row in rows.values()):.0f}']


def _values(rows: Iterable[dict], metric: str, key: str = 'metrics') -> str:
    """Values of all seeds, as per cent."""
    return ', '.join(f'{_per_cent(row[key][metric], metric):.1f}' for row in rows if row[key])


def _per_cent(value: float, metric: str) -> float:
    return 100 * value if metric.startswith('coco/') else value


def _settings(rows: Rows) -> Iterator[List[str]]:
    metric = TASKS[next(iter(rows.values()))['task']].metric
    base = [_per_cent(row['metrics'][metric], metric) for name, row in rows.items()
            if '-base-' in name]
    yield ['as pretrained, three seeds', ', '.join(f'{value:.1f}' for value in base),
           f'± {(max(base) - min(base)) / 2:.1f}']
    for name, row in rows.items():
        if '-base-' not in name:
            value = _per_cent(row['metrics'][metric], metric)
            yield [' '.join(name.split('-')[1:]), f'{value:.1f}', f'{value - mean(base):+.1f}']


def _compare(results: Dict[str, Rows]) -> Iterator[List[str]]:
    for name in networks():
        first = results.get('compare-pretrain', {}).get(f'pretrain-{name}')
        if first:
            yield [name, f'{first["metrics"]["accuracy/top1"]:.1f}', *(
                _values([row for key, row in results.get(f'compare-{size}', {}).items()
                         if key.startswith(f'{name}-{size}-{title}')], 'mIoU')
                for size in (256, 480) for title in ('scratch', 'pretrained'))]


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('results', type=Path, nargs='?', metavar='RESULTS.json',
                        default=Path('work_dirs/photographs/results.json'),
                        help='(default: %(default)s)')
    results = parser.parse_args().results
    text = results.read_text()
    RESULTS.write_text(text)
    last = results.parent / 'pretrain/last_checkpoint'
    if last.is_file():
        copy_backbone(Path(last.read_text().strip()), PRETRAINED)
    write(json.loads(text), PAGE)
    draw(json.loads(text), ROOT / 'docs/images/photographs.png')
