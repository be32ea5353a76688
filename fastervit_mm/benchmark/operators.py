"""How many operators a call is: about as many kernels on a GPU, counted on any machine."""
from collections import Counter
from typing import Callable

from torch.utils._python_dispatch import TorchDispatchMode

# They allocate, rename or ask, and run no kernel.
_FREE = {'aten::empty', 'aten::empty_like', 'aten::empty_strided', 'aten::new_empty',
         'aten::detach', 'aten::alias', 'aten::_unsafe_view', 'aten::_reshape_alias',
         'aten::promote_types', 'aten::_local_scalar_dense'}


def operators(call: Callable[[], object]) -> Counter:
    """The operators that a call runs and that are no views, each with how often.

    Args:
        call: Runs once. Backward passes inside count too. Not compiled: a graph is one call.

    Returns:
        Numbers by name, such as ``{'aten::addmm': 84}``; ``.total()`` is their sum.
    """
    with _Count() as count:
        call()
    return count.numbers


class _Count(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.numbers: Counter = Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = operator._schema.name
        if not operator.is_view and name not in _FREE:
            self.numbers[name] += 1
        return operator(*args, **(kwargs or {}))
