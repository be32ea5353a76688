"""Speed beside peers: :func:`run` measures; :func:`tables`, :func:`draw`, :func:`save` show it."""
from .cases import MODES, PRECISIONS
from .charts import draw
from .run import run, save
from .tables import tables

__all__ = ['MODES', 'PRECISIONS', 'draw', 'run', 'save', 'tables']
