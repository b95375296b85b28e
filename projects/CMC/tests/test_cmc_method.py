"""CMC's steps: against the paper by hand, over two processes, in micro-batches, resumed; what converts."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from moco_cmc import add_cmc_config
from moco_cmc.cmc import CMC
from moco_cmc.color import split_channels
from moco_det.config import get_cfg, merge_config
from moco_det.convert.command import main as convert
from moco_det.testing.core import REPOSITORY, run_processes, write_random_images
from moco_det.testing.methods import (
    PIXELS,
    SmallEncoder,
    assert_one_algorithm,
    assert_resumes,
    random_batch,
    take_steps,
    tiny_method_config,
    train,
)
from moco_det.weights.backbone_file import read_backbone

RECIPES = REPOSITORY / "projects/CMC/configs"
TAU = 0.2


def tiny_config(output="", space="ydbdr", **solver):
    cfg = tiny_method_config(RECIPES / "toy/cmc_R_18.yaml", add_cmc_config, output, **solver)
    moco = cfg.MODEL.MOCO
    moco.DIM, moco.QUEUE_SIZE, moco.MOMENTUM, moco.TEMPERATURE = 6, 24, 0.9, TAU
    cfg.MODEL.CMC.SPACE, cfg.MODEL.CMC.TWO_CROPS = space, False
    return cfg


def make_model(group=4, space="ydbdr", **changes):
    torch.manual_seed(0)
    encoders = [SmallEncoder(group, nn.Linear(SmallEncoder.WIDTH, 6)) for _ in range(2)]
    for encoder, channels in zip(encoders, (3 if space == "ydbdr" else 1, 2), strict=True):
        encoder.conv1 = nn.Conv2d(channels, SmallEncoder.WIDTH, 3, stride=2)
    settings = {"dim": 6, "queue_size": 24, "momentum": 0.9, "temperature": TAU, "shuffle_bn": True, **PIXELS}
    model = CMC(
        encoder=encoders[0], colour_encoder=encoders[1], space=space, seed=1, **{**settings, **changes}
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


@pytest.mark.parametrize("space", ["lab", "ydbdr"])
@pytest.mark.parametrize("two_crops", [False, True])
def test_a_step_is_the_papers(space, two_crops):
    """Without shuffled keys; the tests of ranks have them."""
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
    queues = [model.queue.keys.clone(), model.colour_queue.keys.clone()]
    outputs = model(batch)
    # Lightness looks for its color among those of the queue, and the other way round.
    for name, q, other in (("lightness", embedded[0], 1), ("color", embedded[1], 0)):
        expected = loss_by_loops(q, keys[other], queues[other])
        assert float(outputs[f"loss_{name}"].detach()) == pytest.approx(expected, rel=1e-9)
        bound = math.log(25) - expected
        assert float(outputs[f"mutual_information_{name}"]) == pytest.approx(bound, rel=1e-6)
    torch.testing.assert_close(model.queue.keys[:, :8].T, keys[0])
    torch.testing.assert_close(model.colour_queue.keys[:, :8].T, keys[1])


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


def test_micro_batches_make_the_step_of_the_whole_batch():
    whole, parts = (take_steps(make_model(accumulate=count), steps=4) for count in (1, 2))
    assert_one_algorithm(whole, [parts])


def steps_of_this_rank(group):
    return take_steps(make_model(group), steps=4)


def test_two_processes_train_what_one_trains():
    one = take_steps(make_model(8), steps=4)
    assert_one_algorithm(one, run_processes(steps_of_this_rank, 2, 8))


@pytest.mark.stress  # four ResNets, three runs
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    write_random_images(tmp_path / "images", 24)
    assert_resumes(tiny_config, tmp_path / "images", tmp_path)


def test_the_encoder_of_luma_converts(tmp_path):
    write_random_images(tmp_path / "images", 24)
    method = train(tiny_config(tmp_path / "run", EPOCHS=1), tmp_path / "images").method
    convert([str(tmp_path / "run/model_final.pth"), str(tmp_path / "backbone.pkl")])
    assert method.features(random_batch(0, size=32)["query"]).shape == (8, 512)
    weight = torch.from_numpy(read_backbone(tmp_path / "backbone.pkl").tensors["stem.conv1.weight"])
    method.keep_to_luma()
    torch.testing.assert_close(weight, method.encoder_q.conv1.weight.detach(), rtol=1e-5, atol=1e-6)


def test_lightness_of_lab_is_refused_by_name_where_detectors_begin(tmp_path, capsys):
    write_random_images(tmp_path / "images", 24)
    train(tiny_config(tmp_path / "run", space="lab", EPOCHS=1), tmp_path / "images")
    with pytest.raises(SystemExit):
        convert([str(tmp_path / "run/model_final.pth"), str(tmp_path / "backbone.pkl")])
    assert "images of 1 channel" in capsys.readouterr().err


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("MODEL.CMC.SPACE", "hsv", "MODEL.CMC.SPACE is 'hsv'; expected one of lab, ydbdr"),
        ("MODEL.WEIGHTS", "x.pth", "MODEL.WEIGHTS is 'x.pth', but the encoders of CMC .* leave it empty"),
    ],
)
def test_refuses_what_cannot_be(key, value, message):
    cfg = tiny_config()
    cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=message):
        CMC.check_config(cfg, ranks=1)


def test_the_recipe_has_the_papers_values():
    """Section 4.1 and the authors' code; the queue, its momentum and whole widths are MoCo's."""
    cfg = get_cfg()
    add_cmc_config(cfg)
    merge_config(cfg, str(RECIPES / "cmc_R_50_240ep.yaml"), [])
    moco, solver = cfg.MODEL.MOCO, cfg.SOLVER
    assert (cfg.MODEL.ENCODER.ARCH, moco.DIM, moco.TEMPERATURE, moco.QUEUE_SIZE) == (
        "resnet50",
        128,
        0.07,
        16384,
    )
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.WEIGHT_DECAY) == (256, 0.03, 1e-4)
    assert (solver.EPOCHS, tuple(solver.STEP_EPOCHS), solver.GAMMA) == (240, (120, 160, 200), 0.1)
    CMC.check_config(cfg, ranks=8)
