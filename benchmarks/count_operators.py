"""Count the configs that reach each of mmcv's compiled operators.

Nothing is run: calls are followed through the source, from the classes that a config names. A
method counts if a class that can be instantiated has it and reached code calls its name; code under
``if flag:`` counts unless the config, or the flag's default, turns it off. Operators that only CUDA
tensors reach count too. Flags that are set by positional arguments are missed.
"""
import argparse
import ast
import inspect
import sys
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType

import mmcv.ops
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner

from benchmarks.reports import origin, save

EXT = import_module('mmcv._ext')
LIBRARIES = ('mmdet', 'mmseg')
ENTRIES = frozenset(('train', 'val', 'test', 'forward', 'backward', '__init__', '__call__',
                     '__getitem__', '__iter__', '__len__'))


@lru_cache(None)
def uses(function):
    """References in a function's source: (kind, value, conditional flags)."""
    found, local = [], set(function.__code__.co_varnames)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, SyntaxError):  # generated code, lambdas
        return found

    def resolved(node):
        """Object of a name or a module's attribute."""
        if isinstance(node, ast.Name) and node.id not in local:
            return function.__globals__.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = resolved(node.value)
            return getattr(owner, node.attr, None) if isinstance(owner, ModuleType) else None

    def visit(node, flags=()):
        called = node.func.id if isinstance(node, ast.Call) and isinstance(
            node.func, ast.Name) else ''
        if called == 'isinstance':  # an object of that class need not be there
            return visit(node.args[0], flags)
        if called == 'super':
            found.append(('super', resolved(node.args[0]) if node.args else None, flags))
            return
        if called == 'eval':  # of the type of nms
            found.extend(('type', text.value, flags) for text in ast.walk(tree) if isinstance(
                text, ast.Constant) and text.value in function.__globals__)
        if isinstance(node, ast.arguments):
            for argument, default in [*zip(node.args[::-1], node.defaults[::-1]),
                                      *zip(node.kwonlyargs, node.kw_defaults)]:
                if default:
                    visit(default, (*flags, '=' + argument.arg))
            return
        if isinstance(node, (ast.If, ast.IfExp)):
            test, body = node.test, 'body'
            if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
                test, body = test.operand, 'orelse'
            tests = test.values if isinstance(getattr(test, 'op', None), ast.And) else [test]
            tests = [getattr(test, 'attr', getattr(test, 'id', None)) for test in tests]
            children = getattr(node, body)
            setattr(node, body, [])
            for child in children if isinstance(children, list) else [children]:
                visit(child, (*flags, *filter(None, tests)))
        if isinstance(node, ast.keyword) and node.arg == 'type' and isinstance(
                node.value, ast.Constant):
            found.append(('type', node.value.value, flags))
        if isinstance(node, ast.Attribute):
            owner = resolved(node.value)
            found.append(('operator' if owner is EXT else 'name', node.attr, flags))
            if getattr(owner, 'apply', None) and node.attr != 'apply':
                return  # a method of an autograd Function, which itself is not called
        if isinstance(node, (ast.Name, ast.Attribute)):
            found.append(('object', resolved(node), flags))
        for name, value in ast.iter_fields(node):
            if name not in ('annotation', 'returns', 'decorator_list'):
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        visit(child, flags)
    visit(tree)
    return found


@lru_cache(None)
def above(function):
    """Classes in calls of ``super``; None for the function's own."""
    return [value for kind, value, _ in uses(function) if kind == 'super']


@lru_cache(None)
def methods(cls):
    """Methods of a class by name, with owners, nearest first."""
    found = defaultdict(list)
    for base in inspect.getmro(cls):
        if base.__module__.startswith('mm'):
            for name, value in vars(base).items():
                value = getattr(value, 'fget', getattr(value, '__func__', value))
                value = inspect.unwrap(value) if callable(value) else value
                if isinstance(value, FunctionType):
                    found[name].append((base, value))
    return found


@lru_cache(None)
def default(function, flag):
    """Default of a flag: a global's or a constructor's."""
    if flag in function.__globals__:
        return bool(function.__globals__[flag])
    bases = {base for cls in function.__globals__.values() if inspect.isclass(cls)
             for base in inspect.getmro(cls) if '__init__' in vars(base)}
    parameters = [inspect.signature(base.__init__).parameters.get(flag) for base in bases
                  if base.__module__.startswith('mm')]
    known = [parameter.default for parameter in parameters
             if parameter and parameter.default is not parameter.empty]
    return any(known) if known else True


@lru_cache(None)
def named(name, scope):
    """Classes and operators with a name, in all registries."""
    found = []
    for registry in vars(import_module(f'{scope}.registry')).values():
        if isinstance(registry, Registry):
            try:
                found.append(registry.get(name))
            except Exception:  # a dotted name that is not a module
                pass
    return [*found, getattr(mmcv.ops, name, None)]


@lru_cache(None)
def reached(scope, types, keys, truthy):
    """Operators that a config with these types and keys reaches."""
    operators, classes, functions, names, waiting = set(), set(), set(), set(ENTRIES), [Runner]

    def on(function, flag):
        if flag[0] == '=':  # a default counts if the config lacks the key
            return flag[1:] not in keys
        return flag in truthy if flag in keys else default(function, flag)

    def add(value):
        for item in named(value, scope) if isinstance(value, str) else [value]:
            item = getattr(item, '__self__', item)  # the Function of an apply
            if str(getattr(item, '__module__', '')).startswith('mm'):
                waiting.append(item)

    for value in types:
        add(value)
    while waiting:
        while waiting:
            value = waiting.pop()
            if inspect.isclass(value):
                classes.add(value)
                continue
            value = inspect.unwrap(value) if callable(value) else value
            if not isinstance(value, FunctionType) or value in functions:
                continue
            functions.add(value)
            for kind, item, flags in uses(value):
                if all(on(value, flag) for flag in flags):
                    if kind == 'type' or kind == 'object' and not isinstance(item, str):
                        add(item)
                    elif kind == 'operator':
                        operators.add(item)
                    elif kind == 'name':
                        names.add(item)
        for cls in classes:
            for name in names & methods(cls).keys():
                after = None
                for base, function in methods(cls)[name]:
                    if after and issubclass(base, after):
                        continue
                    if function not in functions:
                        waiting.append(function)
                    if not above(function):
                        break
                    after = above(function)[0]
    return operators


def pairs(config):
    """All keys of a config with their values."""
    if isinstance(config, dict):
        yield from config.items()
        config = config.values()
    if isinstance(config, Iterable) and not isinstance(config, str):
        for value in config:
            yield from pairs(value)


def operators_of(library, path):
    """Operators that a config reaches."""
    settings = [*pairs(Config.fromfile(path, import_custom_modules=False).to_dict())]
    types = {value for key, value in settings if key == 'type' and isinstance(value, str)}
    import_module(f'{library}.utils').register_all_modules(init_default_scope=False)
    return reached(library, frozenset(types), frozenset(key for key, _ in settings),
                   frozenset(key for key, value in settings if value))


def count(library):
    """Count a library's configs, and those that reach each operator."""
    folder = Path(import_module(library).__file__).parent / '.mim' / 'configs'
    number, total = 0, Counter()
    for path in sorted(folder.rglob('*.py')):
        if '_base_' not in path.parts:
            try:
                total.update(operators_of(library, path))
                number += 1
            except OSError as error:  # a missing base
                print(error, file=sys.stderr)
    return number, total


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--out', type=Path, default=Path('work_dirs/bench/count_operators.json'))
    args = parser.parse_args()
    configs, operators = {}, defaultdict(dict)
    for library in LIBRARIES:
        configs[library], found = count(library)
        for name, number in found.items():
            operators[name][library] = number
    for name in sorted(operators):
        print(name, *(f'{library} {number}' for library, number in operators[name].items()))
    save(dict(
        origin(), configs=configs,
        versions={name: import_module(name).__version__ for name in ('mmcv', *LIBRARIES)},
        operators=dict(sorted(operators.items()))), args.out)


if __name__ == '__main__':
    main()
