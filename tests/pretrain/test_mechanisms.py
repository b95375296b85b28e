"""The memory bank and end-to-end against loops from the papers' formulas; the comparisons catch planted bugs.

InstDisc: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination".
"""

import contextlib
import copy
import math
from unittest import mock

import pytest
import torch
from detectron2.utils import comm
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from moco_det import grouped_batch_norm
from moco_det.pretrain import dictionaries, moco
from moco_det.pretrain.command import argument_parser, prepare_output
from moco_det.pretrain.dictionaries import EndToEnd, MemoryBank, random_entries
from moco_det.pretrain.hooks import describe_step
from moco_det.pretrain.losses import nce
from moco_det.pretrain.moco import MoCo
from moco_det.pretrain.plan import method_rows
from moco_det.pretrain.plan_advice import advise, save_memory
from moco_det.pretrain.plan_facts import Facts
from moco_det.pretrain.settings import build_config
from moco_det.pretrain.trainer import PretrainTrainer
from moco_det.run_folder import check_continuation
from moco_det.seeding import torch_generator
from moco_det.sources import locate_backbone
from moco_det.testing import run_processes, tiny_pretrain_config, write_random_images

IMAGES, TAU, T = 20, 0.2, 0.3
SETTINGS = {
    "two encoders": {"DICTIONARY": "end_to_end"},
    "shared encoder": {"DICTIONARY": "end_to_end", "SHARED_ENCODER": True},
    "bank": {"DICTIONARY": "memory_bank", "QUEUE_SIZE": 12, "BANK_MOMENTUM": T, "PROXIMAL": 0.3},
    "bank with nce": {"DICTIONARY": "memory_bank", "QUEUE_SIZE": 12, "BANK_MOMENTUM": T, "LOSS": "nce"},
}
BY_LOOPS = tuple(SETTINGS)
SETTINGS |= {
    "queue": {"DICTIONARY": "queue"},  # against Algorithm 1 in test_moco.py
    "one group over both ranks": {"DICTIONARY": "end_to_end", "BN_GROUP_SIZE": 8},
}


class SmallEncoder(nn.Module):
    """What the mechanisms ask of an encoder: batch norm over groups, and weights before and after it."""

    def __init__(self, arch, dim, mlp, bn_group_size, *_):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 24, 3, stride=2)
        self.bn1 = grouped_batch_norm.GroupedBatchNorm2d(24, bn_group_size)
        self.fc = nn.Linear(24, dim)

    def forward(self, x):
        return self.fc(self.bn1(self.conv1(x)).relu().mean((2, 3)))


def make_model(setting, encoder=SmallEncoder, **solver):
    """In float64, the bank too, so that rounding hides nothing."""
    cfg = tiny_pretrain_config(**solver)
    cfg.DATASETS.NUM_IMAGES = IMAGES
    for key, value in SETTINGS[setting].items():
        cfg.MODEL.MOCO[key] = value
    torch.manual_seed(0)
    with mock.patch.object(moco, "build_encoder", encoder):
        return MoCo(cfg).double().train()


def make_batch(iteration):
    """Two views of 8 different images."""
    generator = torch.Generator().manual_seed(iteration)
    views = torch.randint(0, 256, (2, 8, 3, 9, 9), generator=generator, dtype=torch.uint8)
    index = torch.randperm(IMAGES, generator=generator)[:8]
    return {"query": views[0], "key": views[1], "index": index, "iteration": iteration}


def step(model, batch):
    """All micro-batches of a step: the loss, and gradients in place."""
    model.zero_grad()
    total = 0.0
    count = getattr(model, "module", model).accumulate
    for part in range(count):
        outputs = model({**batch, "micro_batch": part})
        loss = sum(value for name, value in outputs.items() if name.startswith("loss")) / count
        loss.backward()
        total += loss.item()
    return total


# ---- The papers' formulas, in loops ----------------------------------------------------------------


def embed(encoder, images, order):
    """Unit-length embeddings, batch norm over 4 images at a time in this order."""
    mean = torch.tensor([123.675, 116.28, 103.53]).double().view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).double().view(3, 1, 1)
    found = [None] * 8
    for group in (order[:4], order[4:]):
        for place, row in zip(group, encoder((images[group].double() - mean) / std), strict=True):
            found[place] = row / row.norm()
    return found


def end_to_end_by_loops(f_q, f_k, batch):
    """MoCo v1, equation 1, with the 7 other keys of the batch as negatives."""
    order = torch.randperm(8, generator=torch_generator(1, "shuffle", batch["iteration"])).tolist()
    q, k = embed(f_q, batch["query"], list(range(8))), embed(f_k, batch["key"], order)
    total = 0.0
    for i in range(8):
        others = [(q[i] @ k[j] / TAU).exp() for j in range(8) if j != i]
        own = (q[i] @ k[i] / TAU).exp()
        total += -(own / (own + sum(others))).log() / 8
    return total


def bank_by_loops(f_q, bank, batch, setting, z):
    """InfoNCE with a proximal term, or InstDisc's equations 2 to 8; the loss, the bank after it, and Z."""
    q, index = embed(f_q, batch["query"], list(range(8))), batch["index"].tolist()
    drawn = torch.randint(
        IMAGES, (12,), generator=torch_generator(1, "negatives", batch["iteration"])
    ).tolist()
    if z is None:  # equation 8, the mean over the first batch
        z = sum(IMAGES / 12 * sum((bank[j] @ v / TAU).exp() for j in drawn) for v in q).item() / 8
    total = 0.0
    for v, i in zip(q, index, strict=True):
        if setting == "bank with nce":

            def h(j, v=v):
                p = (bank[j] @ v / TAU).exp() / z
                return p / (p + 12 / IMAGES)

            total += -(h(i).log() + sum((1 - h(j)).log() for j in drawn)) / 8
        else:
            own, others = (bank[i] @ v / TAU).exp(), sum((bank[j] @ v / TAU).exp() for j in drawn)
            total += (-(own / (own + others)).log() + 0.3 * sum((v - bank[i]) ** 2)) / 8
    after = bank.clone()
    for v, i in zip(q, index, strict=True):
        moved = T * bank[i] + (1 - T) * v.detach()
        after[i] = moved / moved.norm()
    return total, after, z


def gradients(*encoders):
    """In one row; zeros where there are none."""
    parameters = [p for encoder in encoders for p in encoder.parameters()]
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])


def assert_follows_the_loops(setting, steps=3, bug=contextlib.nullcontext):
    model = make_model(setting)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    z = None
    for iteration in range(steps):
        batch = make_batch(iteration)
        f_q = copy.deepcopy(model.encoder_q)
        f_q.zero_grad()
        if model.dictionary.__class__ is EndToEnd:
            f_k = f_q if setting == "shared encoder" else copy.deepcopy(model.encoder_k)
            f_k.zero_grad()
            expected = end_to_end_by_loops(f_q, f_k, batch)
        else:
            f_k = None
            bank = model.dictionary.entries.clone()
            expected, after, z = bank_by_loops(f_q, bank, batch, setting, z)
        expected.backward()
        with bug():
            loss = step(model, batch)
        assert loss == pytest.approx(expected.item(), abs=1e-9), iteration
        theirs = [f_q] if f_k in (None, f_q) else [f_q, f_k]
        ours = [e for e in (model.encoder_q, model.encoder_k) if e is not None]
        torch.testing.assert_close(gradients(*ours), gradients(*theirs), atol=1e-8, rtol=1e-8)
        if f_k is None:
            torch.testing.assert_close(model.dictionary.entries, after, atol=1e-12, rtol=0)
        optimizer.step()


@pytest.mark.parametrize("setting", BY_LOOPS)
def test_three_steps_equal_the_formulas(setting):
    """Loss, gradients of all encoders, and the bank, over steps that change the weights."""
    assert_follows_the_loops(setting)


# ---- Planted bugs: what the comparisons must catch ---------------------------------------------------


def own_key_among_the_negatives():
    return mock.patch.object(EndToEnd, "compare", lambda self, q, keys, own: q @ keys.T)


def keys_without_gradients():
    plain = EndToEnd.encode
    return mock.patch.object(EndToEnd, "encode", lambda *args: plain(*args).detach())


def keys_not_shuffled():
    plain = MoCo.embed_keys

    def wrong(self, *args):
        with mock.patch.object(self, "shuffle_bn", False):
            return plain(self, *args)

    return mock.patch.object(MoCo, "embed_keys", wrong)


def bank_updated_before_the_comparison():
    plain = MemoryBank.encode

    def wrong(self, model, batch):
        with torch.no_grad(), grouped_batch_norm.recomputing():
            keys, q = (
                plain(self, model, batch),
                model.embed(model.encoder_q, model.normalized(batch["query"])),
            )
        self.update(keys, q)
        return plain(self, model, batch)

    return mock.patch.object(MemoryBank, "encode", wrong)


def momentum_of_the_query():
    plain = MemoryBank.update
    return mock.patch.object(
        MemoryBank, "update", lambda self, keys, q: plain(self, q, keys)
    )  # t q + (1 - t) entry


def z_estimated_anew():
    plain = MemoryBank.encode

    def wrong(self, *args):
        self.has_normaliser = False
        return plain(self, *args)

    return mock.patch.object(MemoryBank, "encode", wrong)


def drawn_without_the_iteration():
    plain = MemoryBank.draw
    return mock.patch.object(MemoryBank, "draw", lambda self, iteration: plain(self, 0))


def noise_of_one_draw():
    wrong = lambda p, n, tau, z, images: nce(p, n, tau, z / n.shape[1], images)  # noqa: E731  h = P / (P + 1/n)
    return mock.patch.object(dictionaries, "nce", wrong)


@pytest.mark.parametrize(
    "setting, bug, steps",
    [
        ("two encoders", own_key_among_the_negatives, 1),
        ("two encoders", keys_without_gradients, 1),
        ("two encoders", keys_not_shuffled, 1),
        ("bank", bank_updated_before_the_comparison, 1),
        ("bank", momentum_of_the_query, 1),
        ("bank", drawn_without_the_iteration, 2),
        ("bank with nce", z_estimated_anew, 2),
        ("bank with nce", noise_of_one_draw, 1),
    ],
)
def test_the_loops_tell_a_wrong_step(setting, bug, steps):
    with pytest.raises(AssertionError):
        assert_follows_the_loops(setting, steps, bug)


# ---- The loss of InstDisc against its definition -----------------------------------------------------


def test_nce_by_its_definition_with_the_exact_normalisation():
    """Three images: P sums to 1 over them, and the estimate of Z from all entries once is exact."""
    generator = torch.Generator().manual_seed(0)
    bank = F.normalize(torch.randn(3, 4, generator=generator, dtype=torch.float64), dim=1)
    v = F.normalize(torch.randn(4, generator=generator, dtype=torch.float64), dim=0)
    similarities = bank @ v
    z = sum(math.exp(s / 0.5) for s in similarities.tolist())
    p = [math.exp(s / 0.5) / z for s in similarities.tolist()]
    assert sum(p) == pytest.approx(1)
    # m = 2 drawn (images 0 and 2), P_n = 1/3; the query is image 1.
    h = [x / (x + 2 / 3) for x in p]
    expected = -(math.log(h[1]) + math.log(1 - h[0]) + math.log(1 - h[2]))
    found = nce(similarities[1:2], similarities[None, [0, 2]], 0.5, torch.tensor(z, dtype=torch.float64), 3)
    assert found.item() == pytest.approx(expected, abs=1e-12)

    dictionary = MemoryBank(4, 3, negatives=3, momentum=0.5, use_nce=True, seed=0).double()
    dictionary.entries.copy_(bank)
    dictionary.draw = lambda iteration: torch.arange(3)
    model = mock.Mock(accumulate=1, temperature=0.5, embed=lambda encoder, x: v[None])
    dictionary.encode(model, {"index": torch.tensor([1]), "iteration": 0, "query": torch.zeros(1)})
    assert dictionary.normaliser.item() == pytest.approx(z, abs=1e-12)


# ---- Two processes are one ---------------------------------------------------------------------------


def train(setting, bug=contextlib.nullcontext):
    """Two steps on the ranks there are: losses, and the state after them."""
    model = make_model(setting)
    with bug():
        wrapped = model
        if comm.get_world_size() > 1:
            wrapped = DistributedDataParallel(model, broadcast_buffers=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        losses = []
        for iteration in range(2):
            batch = make_batch(iteration)
            for name in ("query", "key", "index"):
                batch[name] = grouped_batch_norm.local_block(batch[name])
            losses.append(step(wrapped, batch))
            optimizer.step()
    grouped_batch_norm.average_running_statistics(model)
    return losses, model.state_dict()


def gradients_averaged_twice():
    plain = grouped_batch_norm._GatherWithGradient.backward
    wrong = staticmethod(lambda ctx, gradient: plain(ctx, gradient) / comm.get_world_size())
    return mock.patch.object(grouped_batch_norm._GatherWithGradient, "backward", wrong)


def gradients_of_the_own_rank_only():
    def wrong(ctx, gradient):
        return grouped_batch_norm.local_block(gradient)

    return mock.patch.object(grouped_batch_norm._GatherWithGradient, "backward", staticmethod(wrong))


def negatives_of_its_own():
    wrong = lambda seed, *key: torch_generator(seed + comm.get_rank(), *key)  # noqa: E731
    return mock.patch.object(dictionaries, "torch_generator", wrong)


def bank_that_learns_from_its_own_rank():
    plain = MemoryBank.update

    def wrong(self, keys, queries):
        local = grouped_batch_norm.local_block
        self.index, keys = local(self.index), local(keys)
        with mock.patch.object(dictionaries, "gather", lambda x: x):
            plain(self, keys, queries)

    return mock.patch.object(MemoryBank, "update", wrong)


RANK_BUGS = {
    "gradients averaged twice": ("two encoders", gradients_averaged_twice),
    "gradients of the own rank only": ("two encoders", gradients_of_the_own_rank_only),
    "negatives of its own": ("bank", negatives_of_its_own),
    "bank of its own": ("bank", bank_that_learns_from_its_own_rank),
}


def _all_runs():
    runs = {setting: train(setting) for setting in SETTINGS}
    return runs | {name: train(setting, bug) for name, (setting, bug) in RANK_BUGS.items()}


@pytest.fixture(scope="module")
def two_ranks():
    return run_processes(_all_runs, 2)


def assert_one_algorithm(one, ranks):
    for number, loss in enumerate(one[0]):
        assert sum(losses[number] for losses, _ in ranks) / 2 == pytest.approx(loss, abs=1e-9)
    for _, state in ranks:
        for name, value in one[1].items():
            torch.testing.assert_close(state[name], value, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("setting", SETTINGS)
def test_two_ranks_train_what_one_trains(two_ranks, setting):
    assert_one_algorithm(train(setting), [rank[setting] for rank in two_ranks])


@pytest.mark.parametrize("bug", RANK_BUGS)
def test_the_comparison_of_ranks_catches(two_ranks, bug):
    one = train(RANK_BUGS[bug][0])
    with pytest.raises(AssertionError):
        assert_one_algorithm(one, [rank[bug] for rank in two_ranks])


# ---- Whole runs --------------------------------------------------------------------------------------


def run(images, output, setting, stop=6, resume=False):
    """Steps of the trainer up to ``stop``, 3 an epoch."""
    cfg = tiny_pretrain_config(output)
    for key, value in SETTINGS[setting].items():
        cfg.MODEL.MOCO[key] = value
    cfg.DATASETS.IMAGES = str(images)
    prepare_output(cfg, resume)
    with mock.patch.object(moco, "build_encoder", SmallEncoder):
        trainer = PretrainTrainer(cfg)
    if resume:
        trainer.resume()
    trainer.max_iter = stop
    trainer.run()
    return trainer


@pytest.mark.parametrize("setting", ["shared encoder", "two encoders", "bank with nce"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, setting):
    """Bit for bit, cut in the middle of an epoch: the encoders, the optimizer, the bank and Z."""
    write_random_images(tmp_path / "images", 24)
    run(tmp_path / "images", tmp_path / "cut", setting, stop=4)
    ours = run(tmp_path / "images", tmp_path / "cut", setting, resume=True)
    theirs = run(tmp_path / "images", tmp_path / "whole", setting)
    for name, value in theirs.moco.state_dict().items():
        assert torch.equal(value, ours.moco.state_dict()[name]), name
    log = (tmp_path / "cut/metrics.json").read_text()
    assert ("bank_real" in log) == (setting == "bank with nce") and "queue_real" not in log
    if setting == "bank with nce":
        assert ours.moco.dictionary.entries.dtype == torch.float16
        assert ours.moco.dictionary.seen.all() and ours.moco.dictionary.normaliser > 0


def test_a_run_from_before_a_key_continues_as_with_its_default(tmp_path):
    cfg = tiny_pretrain_config(tmp_path)
    old = cfg.clone()
    old.MODEL.MOCO.pop("LOSS")
    (tmp_path / "config.yaml").write_text(old.dump())
    assert check_continuation(cfg) == []
    cfg.MODEL.MOCO.LOSS = "nce"
    with pytest.raises(ValueError, match="MODEL.MOCO.LOSS was 'infonce', is 'nce'"):
        check_continuation(cfg)


# ---- The bank ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["bank", "bank with nce"])
def test_micro_batches_are_the_same_algorithm(setting):
    """One draw, one Z, one update a step."""
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
        bank.index, bank.negatives = torch.tensor(index), None
        q = F.normalize(torch.randn(3, 8), dim=1)
        keys = bank.rows(bank.index)
        expected = F.normalize(keys + q, dim=1).half()
        bank.update(keys, q)
        assert torch.equal(bank.entries[index[1:]], expected[1:])  # of image 3 the last counts
        assert bank.report()["bank_real"].item() == pytest.approx(real / 1000)


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


# ---- The momentum table ------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.0, 0.9999])
def test_the_ends_of_the_momentum_table(momentum):
    queue = {"DICTIONARY": "queue", "QUEUE_SIZE": 24, "MOMENTUM": momentum}
    with mock.patch.dict(SETTINGS, {"queue": queue}):
        model = make_model("queue")
    q, k = model.encoder_q.fc.weight, model.encoder_k.fc.weight
    q.data += 1
    before = k.clone()
    step(model, make_batch(0))
    torch.testing.assert_close(k, momentum * before + (1 - momentum) * q, atol=1e-12, rtol=0)
    assert k.grad is None and q.grad is not None


# ---- What a plan and a log say -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting, label, text",
    [
        (
            "two encoders",
            "end-to-end",
            "7 negatives, the other keys of the batch; an encoder for queries and one",
        ),
        (
            "shared encoder",
            "end-to-end",
            "7 negatives, the other keys of the batch; one encoder, all trained",
        ),
        (
            "bank with nce",
            "memory bank",
            "20 images, 0.00 GiB; 12 negatives a step, for 45.96% of queries their own",
        ),
    ],
)
def test_a_plan_tells_the_mechanism(setting, label, text):
    """And gives no advice on a queue that is not there."""
    cfg = tiny_pretrain_config()
    for key, value in SETTINGS[setting].items():
        cfg.MODEL.MOCO[key] = value
    facts = Facts(cfg, IMAGES)
    (row,) = method_rows(facts)[1:]
    assert row[0] == label and text in row[1]
    assert not [a for a in advise(facts) if "queue" in a.found or "momentum" in a.found]
    assert ("ACCUMULATE" in save_memory(facts)) == (setting == "bank with nce")


def test_a_log_line_names_the_bank():
    names = ("epoch", "total_loss", "similarity_positive", "similarity_batch", "similarity_negative", "lr")
    latest = dict.fromkeys((*names, "images_per_second", "data_wait", "seconds_per_step"), 0.5)
    assert "0.50 bank  bank 25% real (the loss rises" in describe_step({**latest, "bank_real": 0.25}, 1, 2, 1)
    assert "0.50 batch, 0.50 negatives  lr" in describe_step(latest, 1, 2, 1)


# ---- Refusals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        (("DICTIONARY", "queue", "LOSS", "nce"), r"LOSS is 'nce' with .*DICTIONARY queue; only memory_bank"),
        (
            ("DICTIONARY", "end_to_end", "PROXIMAL", 1.0),
            r"PROXIMAL is 1.0 with .*end_to_end; only memory_bank",
        ),
        (("DICTIONARY", "memory_bank", "SHARED_ENCODER", True), r"SHARED_ENCODER is True .* only end_to_end"),
        (("DICTIONARY", "memory_bank", "BANK_MOMENTUM", 1.0), r"BANK_MOMENTUM is 1.0; expected 0 <= t < 1"),
        (("DICTIONARY", "memory_bank", "PROXIMAL", -1.0), r"PROXIMAL is -1.0; expected 0"),
        (("DICTIONARY", "memory_bank", "QUEUE_SIZE", 0), r"QUEUE_SIZE is 0; expected 1 or more negatives"),
        (
            ("DICTIONARY", "memory_bank"),
            r"DATASETS.NUM_IMAGES is 0; a memory bank has an entry for each image",
        ),
        (("LOSS", "triplet"), r"LOSS is 'triplet'; expected one of infonce, nce"),
    ],
)
def test_refuses_what_a_dictionary_cannot_have(options, message):
    cfg = tiny_pretrain_config()
    for key, value in zip(options[::2], options[1::2], strict=True):
        cfg.MODEL.MOCO[key] = value
    with pytest.raises(ValueError, match=message):
        MoCo(cfg)


def test_end_to_end_refuses_micro_batches_and_single_images():
    cfg = tiny_pretrain_config(ACCUMULATE=2)
    cfg.MODEL.MOCO.DICTIONARY = "end_to_end"
    with pytest.raises(ValueError, match="ACCUMULATE is 2 .*SOLVER.ACTIVATION_CHECKPOINTING True"):
        MoCo(cfg)
    cfg.SOLVER.ACCUMULATE = cfg.SOLVER.IMS_PER_BATCH = cfg.MODEL.MOCO.BN_GROUP_SIZE = 1
    with pytest.raises(ValueError, match="IMS_PER_BATCH is 1 with .* expected 2 or more"):
        MoCo(cfg)


@pytest.mark.parametrize(
    "kind, key, value",
    [
        ("end_to_end", "QUEUE_SIZE", "64"),
        ("end_to_end", "MOMENTUM", "0.9"),
        ("memory_bank", "MOMENTUM", "0.9"),
        ("memory_bank", "SHUFFLE_BN", "False"),
        ("queue", "BANK_MOMENTUM", "0.9"),
        ("queue", "SHARED_ENCODER", "True"),
    ],
)
def test_a_key_that_the_dictionary_does_not_read_is_refused(kind, key, value):
    args = argument_parser().parse_args(
        ["--config-file", "configs/Pretrain/moco_v2_R_50_200ep.yaml", "--images", "x", "--num-gpus", "0"]
        + ["MODEL.MOCO.DICTIONARY", kind, f"MODEL.MOCO.{key}", value]
    )
    with pytest.raises(ValueError, match=f"MODEL.MOCO.{key} has no effect with MODEL.MOCO.DICTIONARY {kind}"):
        build_config(args)
