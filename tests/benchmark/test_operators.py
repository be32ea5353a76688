"""The program that counts operators, and the table that its figures are shown in."""
import json
import sys

from fastervit_mm import FasterViT
from fastervit_mm.backbone.variants import resolve_variant
from tests.conftest import REPO, TINY, load_program


def test_the_program_counts_and_saves(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'path', list(sys.path))
    program = load_program('benchmarks/operators.py')
    # FasterViT-0 but for its widths, on which no count depends.
    variant = resolve_variant('0')
    monkeypatch.setattr(program, 'build', lambda name: FasterViT(dict(
        TINY, depths=variant.depths, drop_path_rate=variant.drop_path_rate)))
    monkeypatch.setattr(sys, 'argv', ['operators.py', '--models', 'fastervit-0',
                                      '--out', str(tmp_path / 'operators.json')])
    program.main()
    found = json.loads((tmp_path / 'operators.json').read_text())['rows']
    kept = json.loads((REPO / 'benchmarks' / 'operators.json').read_text())['rows']
    assert list(found) == ['fastervit-0']
    assert {mode: count['total'] for mode, count in found['fastervit-0'].items()} == {
        mode: count['total'] for mode, count in kept['fastervit-0'].items()
        if 'compiled' not in mode}  # minutes
    assert str(found['fastervit-0']['backward']['total']) in capsys.readouterr().out


def test_the_page_shows_the_figures_that_are_kept():
    rows = json.loads((REPO / 'benchmarks' / 'operators.json').read_text())['rows']
    page = (REPO / 'docs' / 'performance.md').read_text()
    modes = ['evaluation, bf16', 'evaluation, autocast', 'deployed, bf16', 'deployed, autocast',
             'training forward, autocast', 'backward', 'compiled, bf16: generated']
    shown = {'FasterViT-0': 'fastervit-0', 'FasterViT-1': 'fastervit-1',
             'FasterViT-2': 'fastervit-2', 'authors\', FasterViT-2': 'authors-2',
             'Swin-T (timm, fused)': 'swin-t', 'SwinHAT-T': 'swin-hat-t',
             'ConvNeXt-T (timm)': 'convnext-t'}
    assert set(shown.values()) == set(rows)
    start = page.index('## Number of kernels')
    section = page[start:page.index('\n## ', start + 1)]
    for label, name in shown.items():
        line = next(line for line in section.splitlines() if line.startswith(f'| {label} |'))
        cells = [cell.strip() for cell in line.strip('|').split('|')][1:]
        assert cells == [str(rows[name][mode]['total']) if mode in rows[name] else ''
                         for mode in modes]
