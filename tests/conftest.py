import logging
import os
import tempfile

import pytest
import torch
from checkpoint_examples import official_moco, random_states

# What is found of the tests' data sets is kept here, not among the user's.
os.environ["MOCO_DET_CACHE"] = tempfile.mkdtemp(prefix="moco_det_cache_")
LOGGERS = [logging.getLogger(name) for name in ("moco_det", "detectron2", "fvcore")]
AT_FIRST = [(logger.handlers[:], logger.propagate, logger.level) for logger in LOGGERS]


@pytest.fixture(autouse=True)
def loggers_as_at_first():
    """A run points the loggers at its folder and keeps them from pytest; undo both, also of fixtures' runs."""
    for logger, state in zip(LOGGERS, AT_FIRST, strict=True):
        logger.handlers[:], logger.propagate, level = state
        logger.setLevel(level)


@pytest.fixture
def computed_in_bfloat16(monkeypatch):
    """Use bfloat16 also on a processor that is slower with it, for encoders small enough."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


@pytest.fixture(scope="session")
def resnet18() -> dict[str, torch.Tensor]:
    return random_states("resnet18")


@pytest.fixture(scope="session")
def other_resnet18() -> dict[str, torch.Tensor]:
    return random_states("resnet18", seed=1)


@pytest.fixture(scope="session")
def resnet50() -> dict[str, torch.Tensor]:
    return random_states("resnet50")


@pytest.fixture(scope="session")
def official(resnet18, other_resnet18) -> dict:
    return official_moco(resnet18, other_resnet18)
