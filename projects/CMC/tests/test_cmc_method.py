"""CMC: what every method passes; its steps against the paper by hand; luma; what converts."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from moco_cmc import add_cmc_config
from moco_cmc.cmc import CMC
from moco_cmc.color import split_channels
from moco_det.convert.command import main as convert
from moco_det.modeling.encoder import pooled_features
from moco_det.pretrain.moco.plan import queue_too_large
from moco_det.pretrain.plan.advice import advise
from moco_det.pretrain.plan.facts import Facts
from moco_det.testing.core import REPOSITORY, write_random_images
from moco_det.testing.methods import PIXELS, MethodSuite, SmallEncoder, random_batch, take_steps, train

TAU = 0.2


def make_model(group=4, space="ydbdr", **changes):
    torch.manual_seed(0)
    encoders = [SmallEncoder(group, nn.Linear(SmallEncoder.WIDTH, 6)) for _ in range(2)]
    for encoder, channels in zip(encoders, (3 if space == "ydbdr" else 1, 2), strict=True):
        encoder.conv1 = nn.Conv2d(channels, SmallEncoder.WIDTH, 3, stride=2)
    settings = {"dim": 6, "queue_size": 24, "momentum": 0.9, "temperature": TAU, "shuffle_bn": True, **PIXELS}
    model = CMC(
        encoder=encoders[0], color_encoder=encoders[1], space=space, seed=1, **{**settings, **changes}
    )
    return model.double().train()


def loss_by_loops(queries, keys, queue):
    """Equation 2 with the candidates of a queue, one anchor at a time."""
    losses = []
    for q, k in zip(queries, keys, strict=True):
        own = math.exp(float(q @ k) / TAU)
        others = sum(math.exp(float(q @ queue[:, j]) / TAU) for j in range(queue.shape[1]))
        losses.append(-math.log(own / (own + others)))
    return sum(losses) / len(losses)


def check_step(space, two_crops):
    """Compare a step without shuffled keys; the comparison of processes has them."""
    model = make_model(space=space, two_crops=two_crops, shuffle_bn=False)
    model.encoder_q.fc.weight.data *= 1.5  # else queries and keys of a crop are the same
    model.color_q.fc.weight.data[0] *= 3
    batch = random_batch(0)
    keys, embedded = [], []
    for query, key, channel in (
        (model.encoder_q, model.encoder_k, 0),
        (model.color_q, model.color_k, 1),
    ):
        key = copy.deepcopy(key)
        with torch.no_grad():
            for p, q in zip(key.parameters(), query.parameters(), strict=True):
                p.copy_(0.9 * p + 0.1 * q)
            of_key = model.views(batch["key" if two_crops else "query"])[channel]
            keys.append(F.normalize(key(of_key), dim=1))
            embedded.append(F.normalize(copy.deepcopy(query)(model.views(batch["query"])[channel]), dim=1))
    queues = [model.queue.keys.clone(), model.color_queue.keys.clone()]
    outputs = model(batch)
    # Lightness looks for its color among those of the queue, and the other way round.
    for name, q, other in (("lightness", embedded[0], 1), ("color", embedded[1], 0)):
        expected = loss_by_loops(q, keys[other], queues[other])
        assert float(outputs[f"loss_{name}"].detach()) == pytest.approx(expected, rel=1e-9)
        bound = math.log(25) - expected
        assert float(outputs[f"mutual_information_{name}"]) == pytest.approx(bound, rel=1e-6)
    torch.testing.assert_close(model.queue.keys[:, :8].T, keys[0])
    torch.testing.assert_close(model.color_queue.keys[:, :8].T, keys[1])


def test_lab_encoders_see_the_channels_and_ydbdr_luma_as_rgb():
    images = random_batch(0)["query"]
    lab = make_model(space="lab")
    for ours, theirs in zip(lab.views(images), split_channels(images, "lab", torch.float64), strict=True):
        torch.testing.assert_close(ours, theirs)
    luma, color = make_model().views(images)
    assert luma.shape == (8, 3, 9, 9) and color.shape == (8, 2, 9, 9)
    # Up to its scale it is luma, less that of the mean.
    red, green, blue = images.double().unbind(1)
    expected = 0.299 * red + 0.587 * green + 0.114 * blue
    mean = 0.299 * 123.675 + 0.587 * 116.28 + 0.114 * 103.53
    scale = luma[0, 1, 0, 0] / (expected - mean)[0, 0, 0]
    torch.testing.assert_close(luma[:, 1], scale * (expected - mean), rtol=1e-5, atol=1e-5)


def test_the_trained_encoder_of_luma_gives_the_same_for_rgb_images():
    """Which is why it converts as it is: also after steps with momentum, weight decay and the pull of rounding."""
    model = make_model()
    take_steps(model, steps=3, lr=0.1)
    with torch.no_grad():
        model.encoder_q.conv1.weight += 1e-3  # a bit across luma, as a longer run would have
    take_steps(model, steps=1, lr=0.0)
    images = random_batch(7)["query"]
    model.eval()
    of_luma, of_rgb = (model.encoder_q(x) for x in (model.views(images)[0], model.normalized(images)))
    torch.testing.assert_close(of_luma, of_rgb, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model.embeddings(images), F.normalize(of_rgb, dim=1))


class TestCMC(MethodSuite):
    add_config = staticmethod(add_cmc_config)
    recipes = REPOSITORY / "projects/CMC/configs"
    # Section 4.1 and the authors' code; the queue, its momentum and whole widths are MoCo's.
    published = {
        "cmc_R_50_240ep": {
            **{"MODEL.ENCODER.ARCH": "resnet50", "MODEL.MOCO.DIM": 128, "MODEL.MOCO.QUEUE_SIZE": 16384},
            **{"MODEL.MOCO.TEMPERATURE": 0.07, "SOLVER.IMS_PER_BATCH": 256, "SOLVER.BASE_LR": 0.03},
            **{"SOLVER.EPOCHS": 240, "SOLVER.STEP_EPOCHS": (120, 160, 200), "SOLVER.GAMMA": 0.1},
            "SOLVER.WEIGHT_DECAY": 1e-4,
        }
    }
    tiny = (
        "toy/cmc_R_18",
        {
            **{"MODEL.MOCO.DIM": 6, "MODEL.MOCO.QUEUE_SIZE": 16, "MODEL.MOCO.MOMENTUM": 0.9},
            **{"MODEL.MOCO.TEMPERATURE": TAU, "MODEL.CMC.SPACE": "ydbdr", "MODEL.CMC.TWO_CROPS": False},
        },
    )
    refused = (("MODEL.CMC.SPACE", "hsv"), ("MODEL.WEIGHTS", "x.pth"))
    steps = 4
    bugs = (
        (CMC, "forward", "color_k, self.color_queue", "k, self.queue"),  # lightness against itself
        (CMC, "forward", "momentum_update(self.color_k, self.color_q, self.momentum)", "pass"),
        (CMC, "forward", "self.color_queue.enqueue(color_keys)", "self.color_queue.enqueue(keys)"),
        (CMC, "embed_keys", 'batch["key" if self.two_crops else "query"]', 'batch["key"]'),
        (CMC, "compare", "1 + queue.size", "queue.size"),
    )

    @staticmethod
    def make_model(group=4, accumulate=1):
        return make_model(group, accumulate=accumulate)

    def check_step(self):
        for space in ("lab", "ydbdr"):
            for two_crops in (False, True):
                check_step(space, two_crops)

    def test_lightness_of_lab_is_refused_by_name_where_detectors_begin(self, tmp_path, capsys):
        write_random_images(tmp_path / "images", 16)
        cfg = self.tiny_config(tmp_path / "run")
        cfg.MODEL.CMC.SPACE, cfg.SOLVER.EPOCHS = "lab", 1
        train(cfg, tmp_path / "images")
        with pytest.raises(SystemExit):
            convert([str(tmp_path / "run/model_final.pth"), str(tmp_path / "backbone.pkl")])
        assert "images of 1 channel" in capsys.readouterr().err

    def test_features_are_those_of_the_encoder_of_luma_for_rgb_images(self):
        method, images = (
            copy.deepcopy(self.whole_run().method).double().eval(),
            random_batch(0, size=32)["query"],
        )
        method.keep_to_luma()
        features = pooled_features(method.encoder_q, method.normalized(images))
        torch.testing.assert_close(method.features(images), features, rtol=1e-4, atol=1e-5)

    def test_a_plan_has_the_advice_on_a_queue(self):
        facts = Facts(self.tiny_config(), num_images=32)  # a queue of 16 is half of them
        assert queue_too_large(facts) in advise(facts)
