"""Run folders with known numbers."""

from run_examples import add_detections, make_pretraining, make_run  # noqa: F401
