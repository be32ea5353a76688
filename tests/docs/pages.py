"""Blocks of code and commands in the pages."""
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, List, Optional

from tests.conftest import REPO

PAGES = [REPO / 'README.md', REPO / 'CONTRIBUTING.md', *sorted((REPO / 'docs').glob('*.md'))]

# A mark before a block, as `<!-- needs: coco, 8 gpus -->` or `<!-- after: make demo -->`, then the
# block; its info string may name the file that the reader puts it into.
_FENCE = re.compile(
    r'^(?:<!-- *(?P<mark>(?:needs|after):[^>]*?) *-->\n)?```(?P<language>\w*)'
    r'(?: +title="(?P<title>[^"]+)")?[^\n]*\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Fence:
    """A block of code in a page."""
    page: Path
    line: int
    mark: Optional[str]
    language: str
    title: Optional[str]
    text: str

    @property
    def commands(self) -> List[str]:
        """Shell commands, one each, continued lines joined."""
        lines = self.text.replace('\\\n', ' ').splitlines()
        return [' '.join(line.split()) for line in lines
                if line.strip() and not line.lstrip().startswith('#')]

    def __str__(self):
        return f'{self.page.name}:{self.line}'


def fences(language: str) -> Iterator[Fence]:
    for page in PAGES:
        text = page.read_text()
        for found in _FENCE.finditer(text):
            fence = Fence(page, text[:found.start()].count('\n') + 1, found['mark'],
                          found['language'], found['title'], found['text'])
            if fence.language == language:
                yield fence


def words(command: str) -> List[str]:
    """A command's words, without environment settings before and a comment after it."""
    found = shlex.split(command, comments=True)
    while found and re.match(r'\w+=', found[0]):
        found.pop(0)
    return found


def tool_call(command: str) -> Optional[List[str]]:
    """``['tools/train.py', arguments…]`` of a command that runs a program of ours; else None.

    ``$FVIT`` is the clone, on pages for people who work elsewhere.
    """
    found = words(command)
    if found and found[0] in ('python', 'python3'):
        found.pop(0)
    if found and found[0] == '-m' and found[1].startswith('benchmarks.'):
        path = found[1].replace('.', '/')
        package = (REPO / path).is_dir()
        return [f'{path}/__main__.py' if package else f'{path}.py', *found[2:]]
    if found:
        found[0] = found[0].removeprefix('$FVIT/')
    ours = found and re.match(r'(?:tools|benchmarks)/[\w/]+\.(?:py|sh)$', found[0])
    return found if ours else None
