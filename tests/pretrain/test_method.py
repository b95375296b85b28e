"""A method that is not MoCo on the same loop: what it is told, what it may set, and where its result goes."""

import pytest
import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn
from torch.distributed.utils import _recursive_to

from moco_det.convert.convert import convert
from moco_det.modeling.grouped_batch_norm import update_running_statistics
from moco_det.modeling.heads import mlp
from moco_det.modeling.momentum_encoder import make_key_encoder
from moco_det.pretrain.command import argument_parser
from moco_det.pretrain.method import PretrainMethod, StepState, build_backbone, common_settings, method_class
from moco_det.pretrain.plan.advice import advise
from moco_det.pretrain.plan.facts import Facts
from moco_det.pretrain.plan.plan import method_rows
from moco_det.pretrain.settings import build_config
from moco_det.pretrain.trainer import PretrainTrainer
from moco_det.testing.core import write_random_images
from moco_det.testing.methods import assert_resumes, tiny_method_config, train

SECRET = 0.625


@META_ARCH_REGISTRY.register()
class FollowTheLeader(PretrainMethod):
    """Pulls two views together; its result is the second encoder, which halves its distance with each step."""

    linear_rule = ("LARS", 0.5)
    result = "key"

    @configurable
    def __init__(self, *, encoder, weight, **common):
        super().__init__(**common)
        self.encoder_q, self.encoder_k = encoder, make_key_encoder(encoder)
        self.scale = nn.Parameter(torch.ones(1))
        self.weight, self.calls = weight, []

    @classmethod
    def from_config(cls, cfg):
        encoder = build_backbone(cfg)
        encoder.fc = mlp((encoder.fc.in_features, 8, 8), 4, last_norm=True)
        return {**common_settings(cfg), "encoder": encoder, "weight": cfg.MODEL.LEADER.WEIGHT}

    @classmethod
    def check_num_images(cls, cfg, num_images):
        if num_images < 10:
            raise ValueError(f"only {num_images} images")

    @classmethod
    def plan_rows(cls, facts):
        return [("leader", f"weight {facts.cfg.MODEL.LEADER.WEIGHT}")]

    def parameter_groups(self):
        (everything,) = super().parameter_groups()
        others = [p for p in everything["params"] if p is not self.scale]
        return [{"params": others}, {"params": [self.scale], "base_lr": 0.01, "decay_lr": False}]

    def forward(self, batch):
        self.calls.append(("forward", batch["iteration"], batch["progress"], batch["micro_batch"]))
        p, q = (
            self.compute(self.encoder_q, self.normalized(self.micro_batch(batch[name], batch)))
            for name in ("query", "key")
        )
        if self.is_last(batch):
            update_running_statistics(self)
        return {"loss": self.weight * (self.scale * p - q.detach()).square().mean(), "heard": p.new_ones(())}

    def after_backward(self, iteration, progress):
        assert self.encoder_q.conv1.weight.grad is not None
        self.before = self.encoder_q.conv1.weight.detach().clone()
        self.calls.append(("after_backward", iteration, progress))

    def after_step(self, progress):
        assert not torch.equal(self.before, self.encoder_q.conv1.weight) or progress == 0
        self.calls.append(("after_step", progress))
        for q, k in zip(self.encoder_q.parameters(), self.encoder_k.parameters(), strict=True):
            k.data.lerp_(q.data, 0.5)


def add_leader_config(cfg):
    cfg.MODEL.LEADER = CfgNode({"WEIGHT": SECRET})


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "leader.yaml"
    path.write_text(
        "MODEL:\n  META_ARCHITECTURE: FollowTheLeader\n  PIXEL_MEAN: [123.675, 116.28, 103.53]\n"
        "  PIXEL_STD: [58.395, 57.12, 57.375]\nINPUT:\n  FORMAT: RGB\n"
        "SOLVER:\n  OPTIMIZER: LARS\n  LR_SCHEDULER_NAME: CosineLR\n  BASE_LR: 0.5\n"
    )
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_random_images(folder, 24)
    return folder


@pytest.fixture(scope="module")
def whole(recipe, images, tmp_path_factory):
    """Resumed bit for bit with LARS and a warm-up; the uninterrupted run."""
    config = lambda folder: tiny_method_config(recipe, add_leader_config, folder, WARMUP_EPOCHS=1)  # noqa: E731
    return assert_resumes(config, images, tmp_path_factory.mktemp("runs"))


def test_a_method_is_told_where_the_run_is(whole):
    expected = []
    for step in range(6):  # 2 epochs of 24 images in batches of 8
        progress = step / 6
        expected += [
            ("forward", step, progress, 0),
            ("after_backward", step, progress),
            ("after_step", progress),
        ]
    assert whole.method.calls == expected


def test_groups_have_their_own_learning_rates(whole):
    """The last of 6 steps: 2 of 3 steps of the cosine behind; the fixed one as it began."""
    rates = [group["lr"] for group in whole.optimizer.param_groups]
    assert rates == [pytest.approx(0.5 * 0.25), 0.01]
    assert len(whole.optimizer.param_groups[1]["params"]) == 1


def test_its_result_is_what_converts(whole, tmp_path):
    source = f"{whole.cfg.OUTPUT_DIR}/model_final.pth"
    found = convert(source, tmp_path / "backbone.pkl")
    assert found.provenance["encoder"] == "key" and found.provenance["source"] == "moco_det"
    assert found.dropped["other parts of the method"] == ["scale"]
    assert len(found.dropped["query encoder"]) > 60 and len(found.dropped["projection head"]) == 12
    other = convert(source, tmp_path / "query.pkl", encoder="query")
    assert other.provenance["encoder"] == "query"


def test_features_are_those_of_the_result(whole):
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    whole.method.eval()
    before = whole.method.features(images)
    with torch.no_grad():
        whole.method.encoder_q.layer4[1].bn2.bias += 1
        assert torch.equal(whole.method.features(images), before)
        whole.method.encoder_k.layer4[1].bn2.bias += 1
        assert not torch.equal(whole.method.features(images), before)


def test_weights_start_all_encoders(whole, recipe, images, tmp_path):
    cfg = tiny_method_config(recipe, add_leader_config, tmp_path)
    cfg.MODEL.WEIGHTS, cfg.DATASETS.IMAGES = f"{whole.cfg.OUTPUT_DIR}/model_final.pth", str(images)
    method = PretrainTrainer(cfg).method
    saved = torch.load(cfg.MODEL.WEIGHTS)["model"]
    for encoder in method.encoders:
        assert torch.equal(encoder.conv1.weight, saved["encoder_k.conv1.weight"])


def test_a_plan_tells_of_the_method_and_not_of_moco(recipe):
    cfg = tiny_method_config(recipe, add_leader_config)
    facts = Facts(cfg, 1000)
    (_, rate), leader = method_rows(facts)
    assert leader == ("leader", f"weight {SECRET}")
    assert rate == "0.5 falling along half a cosine to 0; the linear rule, 0.5 x 8 / 256, gives 0.01562"
    text = " ".join(f"{advice.found} {advice.fix} {advice.why}" for advice in advise(facts))
    assert "SOLVER.BASE_LR 0.01562" in text and "the paper's rule is 0.5 for 256" in text
    assert "queue" not in text and "shuffling" not in text


def test_a_set_that_does_not_fit_is_refused(recipe, tmp_path):
    write_random_images(tmp_path / "few", 9)
    with pytest.raises(ValueError, match="9 images"):
        train(tiny_method_config(recipe, add_leader_config, tmp_path / "out"), tmp_path / "few")


@pytest.mark.parametrize(
    "options, message",
    [
        (("MODEL.MOCO.QUEUE_SIZE", "64"), "MODEL.MOCO.QUEUE_SIZE .*FollowTheLeader"),
        (
            ("SOLVER.LARS_TRUST", "0.1", "SOLVER.OPTIMIZER", "SGD"),
            "SOLVER.LARS_TRUST .* SGD",
        ),
        (("SOLVER.STEP_EPOCHS", "(1,)"), "SOLVER.STEP_EPOCHS .*SOLVER.LR_SCHEDULER_NAME CosineLR"),
        (
            ("MODEL.META_ARCHITECTURE", "Leader"),
            "META_ARCHITECTURE is 'Leader'.*MoCo.*README",
        ),
    ],
)
def test_settings_that_do_nothing_are_refused(recipe, images, options, message):
    words = ["--config-file", str(recipe), "--num-gpus", "0", "--images", str(images), *options]
    with pytest.raises(ValueError, match=message):
        build_config(argument_parser().parse_args(words), [add_leader_config])


def test_a_method_has_its_keys_and_those_of_all(recipe, images):
    words = ["--config-file", str(recipe), "--num-gpus", "0", "--images", str(images)]
    words += ["MODEL.ENCODER.ARCH", "resnet34", "MODEL.LEADER.WEIGHT", "2.0"]
    cfg = build_config(argument_parser().parse_args(words), [add_leader_config])
    assert method_class(cfg) is FollowTheLeader and cfg.MODEL.LEADER.WEIGHT == 2.0


@pytest.mark.parametrize("arch, last, blocks", [("resnet18", "bn2", 8), ("resnet50", "bn3", 16)])
def test_residual_blocks_may_start_as_the_identity(recipe, arch, last, blocks):
    """The last batch norm of each block, and no other."""
    cfg = tiny_method_config(recipe, add_leader_config)
    cfg.MODEL.ENCODER.ARCH = arch
    for zero in (True, False):
        weights = {
            name: value for name, value in build_backbone(cfg, zero).named_parameters() if value.ndim == 1
        }
        zeros = {name for name, value in weights.items() if name.endswith(".weight") and not value.any()}
        assert len(zeros) == (blocks if zero else 0) and all(
            name.endswith(f"{last}.weight") for name in zeros
        )


def test_micro_batches_share_what_one_of_them_keeps_on_a_gpu_too():
    """DistributedDataParallel moves its inputs to the device by this function, which copies dicts."""
    batch = {"iteration": 0, "step": StepState(keys=1)}
    (moved,) = _recursive_to(batch, torch.device("cpu"), use_side_stream_for_tensor_copies=False)
    assert moved is not batch and moved["step"] is batch["step"]
