"""Writes docs/bad-input.md from the table of cases: ``python -m tests.bad_input.page``."""
from tests.bad_input.cases import PARTS, Case
from tests.conftest import REPO

PAGE = REPO / 'docs/bad-input.md'
HEAD = """\
# Bad input

<!-- Written by python -m tests.bad_input.page from tests/bad_input/cases.py; change that. -->

What is wrong is said in one line that names the argument, what came and what would be right, with
exit status 1, or 2 for arguments that the command line does not have. Each row is a test
(`tests/bad_input/`): it types the command in a folder that has `detector.py` and `segmentor.py`,
two small configs, their checkpoints, `data/` and `photo.jpg`, and checks that

- the line is what the user sees, without a traceback; `…` stands for any text;
- it comes within 10 seconds, the imports of the libraries not counted;
- no file that was there is changed or gone, also none of an earlier run in the work directory, and
  at most a run's log is new;
- no code in a file has run, and no training step, unless the row says that training had begun.

`python -X dev tools/…` shows the traceback all the same. How the readers of checkpoints,
annotations and configs are fuzzed is on the page about
[reliability](reliability.md#bad-input-and-fuzzing).
"""
NOTES = {
    'Arguments': 'In Python; the status is the exception\'s class.',
    'Images': 'Unusual images that are whole are predicted. All rows of a network are one run of '
              '`tools/infer.py`: a bad input ends none of the others, and with several of them the '
              'lines are a list. The size is that of the overlay, enlarged for small images.',
    'Annotations': '`prepare_data.py check` prints a report, of which the line is a part.',
}


def page() -> str:
    """The page, as text."""
    parts = [HEAD]
    for part, cases in PARTS.items():
        lines = [f'## {part}\n']
        if part in NOTES:
            lines += [f'{NOTES[part]}\n']
        lines += ['| given | typed | seen | status |', '|---|---|---|---|', *map(_row, cases)]
        parts.append('\n'.join(lines) + '\n')
    return '\n'.join(parts)


def _row(case: Case) -> str:
    command = case.command[1:-1] if case.command.startswith('(') else case.command
    given = case.given + ('; training had begun' if case.begins else '')
    return (f'| {given} | {_code(command)} | {_code(case.sees)} | {case.status} |')


def _code(text: str) -> str:
    """Text as code in a cell of a table."""
    assert not {'|', '`'} & set(text), f'{text}: a bar or a backtick would end the cell or the code'
    return f'`{text}`'


if __name__ == '__main__':
    PAGE.write_text(page())
    print(PAGE)
