"""The error of an export."""


class ExportError(RuntimeError):
    """A network that cannot be exported as asked, and why."""
