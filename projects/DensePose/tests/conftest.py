"""Toy bodies of 64 px."""

import pytest

from moco_densepose import register_densepose_datasets
from moco_densepose.toy_bodies import make_toy_bodies

NUM_VAL = 4


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory):
    """The folder of data sets with the toy bodies, which are registered there meanwhile."""
    root = tmp_path_factory.mktemp("datasets")
    make_toy_bodies(root / "toy_bodies", num_train=6, num_val=NUM_VAL, size=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(root))
        register_densepose_datasets()
        yield root
    register_densepose_datasets()
