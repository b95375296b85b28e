"""MoCo: what every method passes; its step against Algorithm 1 written out."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet50

from moco_det.modeling.momentum_encoder import momentum_update
from moco_det.pretrain.diagnostics import contrast_statistics
from moco_det.pretrain.method import StepState
from moco_det.pretrain.moco.dictionaries import Queue
from moco_det.pretrain.moco.model import MoCo
from moco_det.testing.core import REPOSITORY, set_keys, tiny_pretrain_config
from moco_det.testing.methods import PIXELS, MethodSuite, SmallEncoder
from moco_det.utils.seeding import torch_generator


def make_batch(iteration=0, count=8, seed=0, size=32):
    generator = torch.Generator().manual_seed(seed)
    views = torch.randint(0, 256, (2, count, 3, size, size), generator=generator, dtype=torch.uint8)
    return {"query": views[0], "key": views[1], "iteration": iteration}


def make_model(**moco):
    cfg = tiny_pretrain_config()
    set_keys(cfg, moco)
    torch.manual_seed(0)
    return MoCo(cfg).double().train()


def algorithm_1(model, batch):
    """One step as plainly as it can be said: loops over groups and queries, no function of the package."""
    mean = torch.tensor([123.675, 116.28, 103.53]).double().view(3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).double().view(3, 1, 1)
    x_q, x_k = ((batch[name].double() - mean) / std for name in ("query", "key"))
    f_q, f_k = copy.deepcopy(model.encoder_q), copy.deepcopy(model.encoder_k)
    f_q.zero_grad()
    for p_k, p_q in zip(f_k.parameters(), f_q.parameters(), strict=True):
        p_k.data = 0.9 * p_k.data + 0.1 * p_q.data
    order = torch.randperm(8, generator=torch_generator(1, "shuffle", batch["iteration"])).tolist()
    q = torch.cat([F.normalize(f_q(x_q[i : i + 4]), dim=1) for i in (0, 4)])
    keys = [None] * 8
    for start in (0, 4):
        group = order[start : start + 4]
        for place, key in zip(group, F.normalize(f_k(x_k[group]), dim=1), strict=True):
            keys[place] = key.detach()
    negatives, queue, losses = model.dictionary.keys.clone(), model.dictionary.keys.clone(), []
    for i in range(8):
        logits = torch.stack([q[i] @ keys[i], *[q[i] @ negatives[:, j] for j in range(24)]]) / 0.2
        losses.append(-logits.log_softmax(0)[0])
    pointer = int(model.dictionary.pointer)
    for i in range(8):
        queue[:, (pointer + i) % 24] = keys[i]
    return torch.stack(losses).mean(), f_q, f_k, queue


def assert_follows_algorithm_1(steps):
    """Loss, gradients, key encoder and queue, over steps that change the weights."""
    model = make_model()
    optimizer = torch.optim.SGD(model.encoder_q.parameters(), lr=0.05)
    for iteration in range(steps):
        batch = make_batch(iteration, seed=iteration)
        expected, f_q, f_k, queue = algorithm_1(model, batch)
        expected.backward()
        loss = model(batch)["loss_contrastive"]
        optimizer.zero_grad()
        loss.backward()
        assert loss.item() == pytest.approx(expected.item(), abs=1e-10)
        for ours, theirs in zip(model.encoder_q.parameters(), f_q.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-9, rtol=1e-9)
        for ours, theirs in zip(model.encoder_k.parameters(), f_k.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
        torch.testing.assert_close(model.dictionary.keys, queue, atol=1e-10, rtol=0)
        optimizer.step()


# PAPER: MoCo v1 sections 3.3 and 4, MoCo v2 section 3, official code main_moco.py.
V1 = {
    **{"MODEL.ENCODER.ARCH": "resnet50", "MODEL.ENCODER.BN_GROUP_SIZE": 32, "MODEL.MOCO.SHUFFLE_BN": True},
    **{"MODEL.MOCO.DIM": 128, "MODEL.MOCO.MLP": False, "MODEL.MOCO.QUEUE_SIZE": 65536},
    **{"MODEL.MOCO.MOMENTUM": 0.999, "MODEL.MOCO.TEMPERATURE": 0.07},
    **{"INPUT.VIEWS.RECIPE": "v1", "INPUT.VIEWS.SIZE": 224, "INPUT.VIEWS.CROP_SCALE": (0.2, 1.0)},
    **{"SOLVER.IMS_PER_BATCH": 256, "SOLVER.BASE_LR": 0.03, "SOLVER.MOMENTUM": 0.9},
    **{"SOLVER.LR_SCHEDULER_NAME": "EpochMultiStepLR", "SOLVER.STEP_EPOCHS": (120, 160), "SOLVER.GAMMA": 0.1},
    **{"SOLVER.WEIGHT_DECAY": 1e-4, "SOLVER.EPOCHS": 200, "SOLVER.PRECISION": "float32"},
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
}
V2 = V1 | {
    **{"MODEL.MOCO.MLP": True, "MODEL.MOCO.TEMPERATURE": 0.2, "INPUT.VIEWS.RECIPE": "v2"},
    "SOLVER.LR_SCHEDULER_NAME": "EpochCosineLR",
}


class TestMoCo(MethodSuite):
    add_config = staticmethod(lambda cfg: None)
    recipes = REPOSITORY / "configs/Pretrain"
    published = {
        "moco_v1_R_50_200ep": V1,
        "moco_v2_R_50_200ep": V2,
        "moco_v2_R_50_800ep": V2 | {"SOLVER.EPOCHS": 800},
    }
    tiny = (
        "moco_v2_R_50_200ep",
        {"MODEL.MOCO.DIM": 16, "MODEL.MOCO.QUEUE_SIZE": 16, "MODEL.MOCO.MOMENTUM": 0.9},
    )
    refused = (
        ("MODEL.ENCODER.BN_GROUP_SIZE", 3, "BN_GROUP_SIZE is 3", "the 8 images of a process"),
        ("MODEL.ENCODER.BN_GROUP_SIZE", 16, "BN_GROUP_SIZE is 16", "for example 8"),
        ("SOLVER.ACCUMULATE", 3, "SOLVER.ACCUMULATE 3", "a divisor of 8"),
        ("SOLVER.ACCUMULATE", 4, "BN_GROUP_SIZE is 4", "the 2 images of a micro-batch"),
        ("MODEL.MOCO.QUEUE_SIZE", 4, "MODEL.MOCO.QUEUE_SIZE is 4", "SOLVER.IMS_PER_BATCH 8"),
        ("MODEL.MOCO.DICTIONARY", "stack"),
        ("MODEL.ENCODER.NORM", "GN"),
        ("MODEL.MOCO.MOMENTUM", 1.0),
        ("MODEL.MOCO.TEMPERATURE", 0.0),
        ("MODEL.ENCODER.ARCH", "resnet20"),
        ("SOLVER.PRECISION", "float8"),
        ("INPUT.FORMAT", "BGR"),
    )
    inapplicable = ("SOLVER.LARS_TRUST", "0.1")
    bugs = (
        (MoCo, "forward", "/= self.temperature", "*= self.temperature"),
        (MoCo, "forward", "torch.zeros(", "torch.ones("),  # the first negative taken for the key
        (MoCo, "forward", "local_block(keys)", "local_block(keys.flip(0))"),  # keys of other images
        (MoCo, "forward", "momentum_update(", "(lambda *_: None)("),
        (MoCo, "forward", "self.dictionary.enqueue(", "torch.abs("),
        (MoCo, "embed_shuffled", "unshuffle(torch.cat(tensors), permutation)", "torch.cat(tensors)"),
        (MoCo, "embed", "return F.normalize(", "return 1.01 * F.normalize("),
    )

    @staticmethod
    def make_model(group=4, accumulate=1):
        torch.manual_seed(0)
        encoder = SmallEncoder(group, torch.nn.Linear(SmallEncoder.WIDTH, 8))
        settings = {"momentum": 0.9, "temperature": 0.2, "shuffle_bn": True, "seed": 1, **PIXELS}
        model = MoCo(encoder=encoder, dictionary=Queue(8, 24, 1), accumulate=accumulate, **settings)
        return model.double().train()

    def check_step(self):
        assert_follows_algorithm_1(3)


def test_statistics_by_hand():
    q = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    keys = torch.tensor([[0.6, 0.8], [0.8, 0.6]])
    found = contrast_statistics(q, keys, torch.tensor([0.6, 0.6]), torch.tensor([[0.5, 0.1], [0.7, -0.1]]))
    expected = {
        "accuracy": 0.5,
        "similarity_positive": 0.6,
        "similarity_batch": 0.8,
        "similarity_negative": 0.3,
    }
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value), name


def test_only_queries_receive_gradients():
    model = make_model()
    model(make_batch())["loss_contrastive"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.encoder_q.parameters())
    assert all(p.grad is None and not p.requires_grad for p in model.encoder_k.parameters())


def test_encoders_start_equal_and_keep_their_own_statistics():
    model = make_model()
    for q, k in zip(model.encoder_q.parameters(), model.encoder_k.parameters(), strict=True):
        assert torch.equal(q, k) and q.data_ptr() != k.data_ptr()
    model(make_batch())
    assert not torch.equal(model.encoder_q.bn1.running_mean, model.encoder_k.bn1.running_mean)


def test_momentum_update_by_hand():
    q, k = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    with torch.no_grad():
        q.weight.fill_(2.0), q.bias.fill_(0.0), k.weight.fill_(1.0), k.bias.fill_(4.0)
    momentum_update(k, q, 0.75)
    assert k.weight.item() == 1.25 and k.bias.item() == 3.0 and q.weight.item() == 2.0


@pytest.mark.parametrize("mlp", [False, True])
def test_head_and_names_are_the_official_ones(mlp):
    names = make_model(MLP=mlp).state_dict().keys()
    head = {"fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias"} if mlp else {"fc.weight", "fc.bias"}
    assert {n.removeprefix("encoder_q.") for n in names if n.startswith("encoder_q.fc")} == head
    assert "encoder_q.layer1.0.bn1.running_var" in names and "encoder_k.conv1.weight" in names


@pytest.mark.parametrize("mlp", [False, True])
def test_the_initialization_is_the_official_one(mlp):
    """torchvision's ResNet-50 with 128 outputs, and v2's layer before the last: bit for bit."""
    cfg = tiny_pretrain_config()
    cfg.MODEL.ENCODER.ARCH = "resnet50"
    cfg.MODEL.MOCO.MLP, cfg.MODEL.MOCO.DIM = mlp, 128
    torch.manual_seed(3)
    model = MoCo(cfg)
    torch.manual_seed(3)
    official = resnet50(num_classes=128)
    if mlp:
        official.fc = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), official.fc)
    for encoder in (model.encoder_q, model.encoder_k):
        states = encoder.state_dict()
        assert list(states) == list(official.state_dict())
        for name, value in official.state_dict().items():
            assert torch.equal(states[name], value), name


@pytest.mark.parametrize("precision, band, cosine", [("bfloat16", 0.02, 0.85), ("float16", 0.005, 0.99)])
def test_reduced_precision_gives_the_first_step_of_float32_to_rounding(
    precision, band, cosine, computed_in_bfloat16
):
    """Loss within the band, gradient in the same direction; what must not be rounded is float32."""
    losses, gradients = [], []
    for name in ("float32", precision):
        cfg = tiny_pretrain_config(PRECISION=name)
        cfg.INPUT.VIEWS.SIZE = 64
        torch.manual_seed(0)
        model = MoCo(cfg).train()
        outputs = model(make_batch(size=64))
        outputs["loss_contrastive"].backward()
        losses.append(outputs["loss_contrastive"].item())
        gradients.append(torch.cat([p.grad.flatten() for p in model.encoder_q.parameters()]))
    assert losses[0] != losses[1] and losses[1] == pytest.approx(losses[0], rel=band)
    assert F.cosine_similarity(*gradients, dim=0) > cosine
    assert model.dictionary.keys.dtype == torch.float32
    assert model.encoder_q.layer4[1].bn2.running_var.dtype == torch.float32


def whole_step(model, iteration):
    """All micro-batches of a step: mean loss, and the gradients in place."""
    model.zero_grad()
    losses, shared = [], {"step": StepState()}
    for part in range(model.accumulate):
        batch = {**make_batch(iteration, seed=iteration), **shared, "micro_batch": part}
        loss = model(batch)["loss_contrastive"]
        (loss / model.accumulate).backward()
        losses.append(loss.detach())
    return torch.stack(losses).mean()


@pytest.mark.parametrize(
    "arch, steps, key, value",
    [
        ("resnet18", 3, "ACCUMULATE", 2),
        ("resnet18", 3, "ACTIVATION_CHECKPOINTING", True),
        ("resnet18", 3, "CHANNELS_LAST", False),
        # At this size rounding explodes in its 53 layers, so one step.
        ("resnet50", 1, "ACTIVATION_CHECKPOINTING", True),
    ],
)
def test_what_saves_memory_or_time_is_the_same_algorithm(arch, steps, key, value):
    """Losses, gradients, both encoders with their running statistics and queue are equal in float64."""
    models = []
    for changed in (False, True):
        cfg = tiny_pretrain_config(**({key: value} if changed else {}))
        cfg.MODEL.ENCODER.ARCH = arch
        torch.manual_seed(0)
        models.append(MoCo(cfg).double().train())
    optimizers = [torch.optim.SGD(model.encoder_q.parameters(), lr=0.05) for model in models]
    for iteration in range(steps):
        plain, changed = (whole_step(model, iteration) for model in models)
        assert changed.item() == pytest.approx(plain.item(), abs=1e-9)
        for ours, theirs in zip(*(model.encoder_q.parameters() for model in models), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-8, rtol=1e-8)
        for optimizer in optimizers:
            optimizer.step()
    for name, value in models[0].state_dict().items():
        torch.testing.assert_close(models[1].state_dict()[name], value, atol=1e-8, rtol=1e-8)


def test_activation_checkpointing_keeps_less():
    """Bytes that the backward pass holds, counted by autograd's own hook."""
    kept = []
    for recompute in (False, True):
        model, total = MoCo(tiny_pretrain_config(ACTIVATION_CHECKPOINTING=recompute)).train(), []
        pack = lambda tensor, total=total: total.append(tensor.nbytes) or tensor  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(make_batch())
        kept.append(sum(total))
    assert kept[1] < 0.6 * kept[0]


def test_synchronized_norm_is_one_group_of_the_whole_batch():
    synchronized, one_group = make_model(NORM="SyncBN"), make_model(BN_GROUP_SIZE=8)
    losses = [
        model(make_batch())["loss_contrastive"].item() for model in (synchronized, one_group, make_model())
    ]
    assert losses[0] == losses[1] and abs(losses[0] - losses[2]) > 1e-3
