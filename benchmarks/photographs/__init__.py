"""Training on photographs: pretraining, transfer, settings, comparison with other networks.

The data are four public datasets of some hundred to some thousand photographs, in one folder
(:data:`~benchmarks.photographs.parts.TASKS`). The results are ``benchmarks/photographs.json`` and
``docs/results.md``.
"""
