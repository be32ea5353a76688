"""Config settings as a person would write them."""
from typing import Any

_WIDTH = 100


def written(value: Any, start: str = '', indent: int = 0, end: str = '') -> str:
    """Setting as Python, broken into lines if too long.

    Args:
        value: Made of dicts, lists, tuples, strings, numbers, None, booleans.
        start: Text before it on its first line.
        indent: Spaces before that.
        end: Text after it.
    """
    line = ' ' * indent + start + _inline(value) + end
    if len(line) <= _WIDTH or not value or not isinstance(value, (dict, list, tuple)):
        return line
    inner = indent + 4
    if isinstance(value, dict):
        named = all(isinstance(k, str) and k.isidentifier() for k in value)
        opening, closing = ('dict(', ')') if named else ('{', '}')
        parts = [written(v, f'{k}=' if named else f'{k!r}: ', inner, ',') for k, v in value.items()]
        if named:  # a call closes after its last part
            parts[-1] = parts[-1][:-1]
            closing, joint = f'){end}', ''
        else:
            closing, joint = f'}}{end}', '\n' + ' ' * indent
        return '\n'.join([' ' * indent + start + opening, *parts]) + joint + closing
    opening, closing = '[]' if isinstance(value, list) else '()'
    parts = [written(v, '', inner, ',') for v in value]
    return '\n'.join([' ' * indent + start + opening, *parts, ' ' * indent + closing + end])


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        if all(isinstance(k, str) and k.isidentifier() for k in value):
            return f'dict({", ".join(f"{k}={_inline(v)}" for k, v in value.items())})'
        return f'{{{", ".join(f"{k!r}: {_inline(v)}" for k, v in value.items())}}}'
    if isinstance(value, (list, tuple)):
        inside = ', '.join(map(_inline, value)) + ',' * (isinstance(value, tuple)
                                                         and len(value) == 1)
        return f'[{inside}]' if isinstance(value, list) else f'({inside})'
    return repr(value)
