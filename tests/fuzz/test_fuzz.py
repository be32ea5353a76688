"""A few seconds of ``make fuzz``, and checks that it detects planted failures."""
import os

import pytest

from tests.fuzz import targets
from tests.fuzz.campaign import run


@pytest.mark.parametrize('name', targets.NAMES)
def test_only_documented_errors(name):
    done = run(name, seconds=4, first=20_000)
    assert done['inputs'] > 0 and done['bytes'] > 0  # how many depends on the machine's load


def test_code_execution_is_noticed(tmp_path):
    with pytest.raises(AssertionError, match='code was run: .*os.mkdir'):
        with targets.nothing_runs():
            os.mkdir(tmp_path / 'made')


def test_an_undocumented_error_is_noticed(monkeypatch):
    def reads(*_, **__):
        raise KeyError('undocumented')

    monkeypatch.setattr(targets, 'load_backbone', reads)
    with pytest.raises(KeyError, match='undocumented'):
        run('checkpoints', seconds=3)
