"""Speed of backbones: :func:`run` measures, :func:`tables` and :func:`draw` show."""
from .cases import MODES, PRECISIONS
from .charts import draw
from .run import run
from .tables import tables

__all__ = ['MODES', 'PRECISIONS', 'draw', 'run', 'tables']
