"""How fast each part is, next to a plain version of the published recipe: ``tools/benchmark_speed.py``.

It stands outside of the stages: it may call all of them, and none of them knows it.
"""
