"""Speed beside peers: :func:`run` measures; :func:`tables`, :func:`draw`, :func:`save` show it."""
from .charts import draw
from .run import MODES, PRECISIONS, run, save, tables

__all__ = ['MODES', 'PRECISIONS', 'draw', 'run', 'save', 'tables']
