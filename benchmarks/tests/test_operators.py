"""Count of operators, and its table."""
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
