"""Tables of a benchmark."""
from collections import defaultdict
from typing import Dict, List, Optional

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from .compare import best_modes, equals, table_of


def tables(report: Dict[str, object], reference: Optional[str] = None) -> List[Table]:
    """Tables of a report, one for each group.

    Speed at equal accuracy comes last. A case without figures is listed as refused. Below a table
    are the reasons, and the best mode of each network.

    Args:
        report: From :func:`~benchmarks.speed.run`, or read from a file that it wrote.
        reference: The model that the column ``faster`` compares with. Default the first of a table.
    """
    groups: Dict[tuple, List[dict]] = defaultdict(list)
    for r in report['results']:
        groups[table_of(r)].append(r)
    out = [_table(*group[:4], results, reference) for group, results in groups.items()]
    pairs = equals(report['results'])
    return [*out, _equals(pairs)] if pairs else out


def _table(step: str, size: tuple, batch: int, precision: str, results: List[dict],
           reference: Optional[str]) -> Table:
    out = Table(title=f'{step}, {size[0]} x {size[1]}, batch {batch}, {precision}',
                title_justify='left', caption_justify='left', box=SIMPLE_HEAD, pad_edge=False,
                collapse_padding=True)
    out.add_column('model', no_wrap=True)
    out.add_column('mode', min_width=15)
    for name in ('ms', '±', 'im/s', 'faster', 'MiB', 'GMAC', 'peak'):
        out.add_column(name, justify='right', no_wrap=True)
    first = next((r['seconds'] for r in results
                  if r['seconds'] and reference in (None, r['model'])), None)
    below = []
    for r in results:
        if r['error']:
            out.add_row(r['model'], _words(r['mode']), 'refused')
            below.append(f'{r["model"]} {r["mode"]} refused: {r["error"]}')
            continue
        if (r.get('graphs') or 1) > 1:
            below.append(f'{r["model"]} {r["mode"]}: compiled as {r["graphs"]} graphs')
        half_spread = 50 * (r['high'] - r['low']) / r['seconds']
        out.add_row(
            r['model'], _words(r['mode']), f'{1e3 * r["seconds"]:.1f}', f'{half_spread:.0f} %',
            f'{r["images_per_second"]:.2f}', f'{first / r["seconds"]:.2f} x' if first else '',
            f'{r["peak_bytes"] / 2**20:.0f}' if r['peak_bytes'] else '',
            f'{r["multiply_adds"] / 1e9:.1f}' if r['multiply_adds'] else '',
            f'{100 * r["fraction_of_peak"]:.0f} %' if r['fraction_of_peak'] else '')
    if len({r['mode'] for r in results}) > 1:
        below.append('best: ' + ', '.join(f'{r["model"]} {r["mode"]}' for r in best_modes(results)))
    out.caption = escape('\n'.join(below)) or None
    return out


def _words(mode: str) -> str:
    return mode.replace('+', ' + ')  # which a narrow terminal can break


def _equals(pairs: List[dict]) -> Table:
    out = Table(title='Speed at equal accuracy, each network in its best mode',
                caption='top-1 on ImageNet-1K as each network\'s authors published it; in '
                'brackets: not within 0.3', title_justify='left', caption_justify='left',
                box=SIMPLE_HEAD, pad_edge=False,
                collapse_padding=True)
    for name in ('case', 'ours', 'mode', 'im/s', 'beside', 'its mode', 'im/s', 'faster'):
        out.add_column(name, justify='right' if name in ('im/s', 'faster') else 'left')
    for p in pairs:
        faster = f'{p["faster"]:.2f} x'
        out.add_row(
            f'{p["step"]} {p["size"][0]} x {p["size"][1]}, batch {p["batch"]}, {p["precision"]}',
            f'{p["model"]} {p["top1"]}', _words(p['mode']), f'{p["images_per_second"]:.2f}',
            f'{p["peer"]} {p["peer_top1"]}', _words(p['peer_mode']),
            f'{p["peer_images_per_second"]:.2f}',
            faster if p['equal'] else f'({faster})')
    return out
