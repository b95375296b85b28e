import pytest
import torch
from checkpoint_examples import official_moco, random_states


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
