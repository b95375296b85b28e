"""The bank: compact, counted, updated once a step, and continued bit for bit."""

import pytest
import torch
from mechanism_examples import make_batch, make_model, step
from torch.nn import functional as F

from moco_det.pretrain.moco import model as moco
from moco_det.pretrain.moco.dictionaries import MemoryBank, random_entries
from moco_det.weights.sources import locate_backbone


@pytest.mark.parametrize("setting", ["bank", "bank with nce"])
def test_micro_batches_are_the_same_algorithm(setting):
    """A step samples once, and updates Z and the bank once."""
    whole, parts = make_model(setting), make_model(setting, ACCUMULATE=2)
    for iteration in range(2):
        losses = [step(model, make_batch(iteration)) for model in (whole, parts)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-9)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, atol=1e-9, rtol=1e-9)


def test_a_resumed_bank_goes_on_bit_for_bit():
    """Entries and Z come from the checkpoint; Z is not estimated again."""
    whole = make_model("bank with nce")
    step(whole, make_batch(0))
    resumed = make_model("bank with nce")
    resumed.load_state_dict(whole.state_dict())
    losses = [step(model, make_batch(1)) for model in (whole, resumed)]
    assert losses[0] == losses[1]
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_bank_is_compact_starts_from_the_seed_and_counts_real_entries():
    bank = MemoryBank(8, 1000, negatives=5, momentum=0.5, seed=3)
    assert bank.entries.dtype == torch.float16 and bank.entries.shape == (1000, 8)
    torch.testing.assert_close(bank.entries.float().norm(dim=1), torch.ones(1000), atol=2e-3, rtol=0)
    assert torch.equal(bank.entries, MemoryBank(8, 1000, negatives=9, momentum=0.1, seed=3).entries)
    assert torch.equal(bank.entries, random_entries(1000, 8, 3, block=64))
    for index, real in (([3, 5, 3], 2), ([5, 6, 7], 4)):
        index = torch.tensor(index)
        q = F.normalize(torch.randn(3, 8), dim=1)
        keys = bank.rows(index)
        expected = F.normalize(keys + q, dim=1).half()
        bank.update(index, keys, q)
        assert torch.equal(bank.entries[index[1:]], expected[1:])  # of image 3 the last counts
        assert bank.num_real == bank.seen.sum() == real


def test_state_dicts_say_which_encoders_there_are():
    """Two encoders, or one; what convert reads."""
    record = {"arch": "resnet18", "preprocessing": {"format": "RGB", "pixel_mean": [1.0] * 3}}
    record["preprocessing"] |= {"pixel_std": [1.0] * 3, "stride_in_1x1": False}
    for setting, encoders in (("two encoders", 2), ("shared encoder", 1), ("bank", 1)):
        model = make_model(setting, encoder=moco.build_encoder)  # a ResNet, as convert reads no other
        content = {"model": model.state_dict(), "moco_det": record}
        found = locate_backbone(content)
        assert "conv1.weight" in found.backbone and not any("dictionary" in n for n in found.backbone)
        if encoders == 1:
            assert model.encoder_k is None
            with pytest.raises(ValueError, match="no tensor of the key encoder"):
                locate_backbone(content, "key")
        else:
            assert "conv1.weight" in locate_backbone(content, "key").backbone
