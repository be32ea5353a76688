"""Error of an export."""


class ExportError(RuntimeError):
    """Export that is not possible; the message says why."""
