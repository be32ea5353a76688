"""What happens to an earlier demo's folder."""
import io
import json

import pytest
from rich.console import Console

from benchmarks.demo import folder as demo_folder


@pytest.fixture
def folder(tmp_path):
    return tmp_path / 'work_dirs/demo'


def begin(folder, settings='these'):
    """Whether the demo continues, and its output."""
    console = Console(file=io.StringIO(), width=20)
    goes_on = demo_folder.begin(folder, settings, console)
    return goes_on, console.file.getvalue()


def fill(folder, settings='these'):
    begin(folder, settings)
    (folder / 'label_maps').mkdir()
    (folder / 'label_maps/a.png').write_text(settings)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


WHOLE = ['demo.json', 'label_maps/a.png']


def test_a_stopped_demo_continues(folder):
    assert begin(folder) == (False, '')
    (folder / 'epoch_1.pth').touch()
    goes_on, said = begin(folder)
    assert goes_on and said.startswith('Going on ') and said.count('\n') == 1
    assert names(folder) == ['demo.json', 'epoch_1.pth']


def test_a_stopped_demo_with_other_settings_is_replaced(folder):
    fill(folder, 'others')
    goes_on, said = begin(folder)
    assert not goes_on and 'another config' in said and names(folder) == ['demo.json']
    assert begin(folder)[0]


def test_a_finished_demo_is_kept_until_the_next_is_finished(folder):
    fill(folder)
    demo_folder.finish(folder, dict(metrics=dict(mAP=1)))
    before = folder.parent / 'demo.previous'
    goes_on, said = begin(folder)
    assert not goes_on and f'kept in {before} until' in said and said.count('\n') == 1
    assert begin(folder)[0]
    assert begin(folder, 'others')[0] is False  # also where it is stopped and replaced
    assert names(folder) == ['demo.json'] and names(before) == WHOLE
    demo_folder.finish(folder, dict(metrics=dict(mAP=2)))
    assert [path.name for path in folder.parent.iterdir()] == ['demo']
    assert json.loads((folder / 'demo.json').read_text()) == dict(metrics=dict(mAP=2))


def test_a_kill_in_between_changes_nothing(folder):
    """After the renaming, after each removal, and before the mark is written."""
    before = folder.parent / 'demo.previous'
    fill(folder)
    demo_folder.finish(folder, dict(metrics={}))
    folder.rename(before)
    assert begin(folder) == (False, '') and names(before) == WHOLE
    demo_folder.finish(folder, dict(metrics={}))
    before.mkdir()
    (before / 'demo.json').write_text('{"metrics": {}}')  # all else is removed
    assert begin(folder)[0] is False and names(before) == ['demo.json']
    (folder / 'demo.json').write_text('')
    assert begin(folder)[0] is False and begin(folder)[0]
    assert names(before) == ['demo.json']


def test_a_folder_with_other_contents_is_left_alone(folder):
    folder.mkdir(parents=True)
    (folder / 'epoch_1.pth').touch()
    with pytest.raises(ValueError, match="demo': holds .* give another"):
        begin(folder)
    assert names(folder) == ['epoch_1.pth']
