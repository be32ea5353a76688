"""docs/first_run.ipynb, cell by cell."""
import json
from pathlib import Path

import pytest

from tests.conftest import REPO


@pytest.mark.long
def test_the_notebook_trains_evaluates_and_predicts(tmp_path, monkeypatch):
    """And what it trains tells discs and squares from noise."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads((REPO / 'docs/first_run.ipynb').read_text())['cells']
    names = {'__name__': 'notebook'}
    for cell in cells:
        if cell['cell_type'] == 'code':
            assert not cell['outputs'], 'commit the notebook without its outputs'
            exec(compile(''.join(cell['source']), cell['id'], 'exec'), names)
    assert Path(names['trained'].checkpoint).name.startswith('best_mIoU_iter_')
    assert names['metrics']['mIoU'] > 50
    results = names['results']
    assert len(results.predictions) == 8 and not results.failures
    assert all(Path(p.files['overlay']).is_file() for p in results.predictions)
