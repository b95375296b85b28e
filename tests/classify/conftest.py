import pytest
import torch
from checkpoint_examples import random_states
from classify_runs import write_colored_set

from moco_det.testing.core import write_random_images


@pytest.fixture(scope="session")
def colored(tmp_path_factory):
    """Three classes that any features tell apart."""
    return write_colored_set(tmp_path_factory.mktemp("colored"), 8)


@pytest.fixture(scope="session")
def random_set(tmp_path_factory):
    """Two classes of random images, 12 for training and 6 for testing each."""
    root = tmp_path_factory.mktemp("random")
    for split, count, seed in (("train", 12, 0), ("test", 6, 5)):
        for number, name in enumerate("ab"):
            write_random_images(root / split / name, count, seed=seed + number)
    return root


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A torchvision file of ResNet-18."""
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(random_states("resnet18"), path)
    return path
