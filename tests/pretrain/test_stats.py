"""Mean and std of images, against plain numpy, and their way as an overlay through all stages."""

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from moco_det.convert.convert import convert
from moco_det.data.decoding import decode_rgb
from moco_det.data.image_files import find_images
from moco_det.engine.checkpoint import RunCheckpointer
from moco_det.finetune.inits import read_init
from moco_det.finetune.loaded_weights import read_weights
from moco_det.finetune.weights_check import check_preprocessing
from moco_det.model_zoo import get_config
from moco_det.pretrain.command import argument_parser
from moco_det.pretrain.moco.model import MoCo
from moco_det.pretrain.settings import build_config
from moco_det.pretrain.stats import main, measure, sample_paths
from moco_det.testing.core import write_random_images


@pytest.fixture
def images(tmp_path):
    """Color, gray, 16 bits, palette and transparency, in sizes from 6 to 800 pixels."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    noise = rng.integers(0, 256, (20, 40, 4), dtype=np.uint8)
    Image.fromarray(noise[..., :3] // 2).save(folder / "color.png")
    Image.fromarray(noise[:2, :3, 0]).save(folder / "gray.png")
    Image.fromarray(rng.integers(0, 65536, (7, 5), dtype=np.uint16)).save(folder / "deep.png")
    Image.fromarray(noise[:9, :8, :3]).quantize(5).save(folder / "palette.png")
    Image.fromarray(noise[:4, :4]).save(folder / "transparent.png")
    return folder


def slow_mean_and_std(paths):
    """Each pixel of an image counts 1 / pixels of that image."""
    pixels = [np.asarray(decode_rgb(path), np.float64).reshape(-1, 3) for path in paths]
    weights = np.concatenate([np.full(len(p), 1 / len(p) / len(pixels)) for p in pixels])[:, None]
    pixels = np.concatenate(pixels)
    mean = (weights * pixels).sum(axis=0)
    return mean, (weights * (pixels - mean) ** 2).sum(axis=0) ** 0.5


def test_each_image_weighs_the_same(images):
    paths = find_images(str(images))
    statistics = measure(paths)
    mean, std = slow_mean_and_std(paths)
    np.testing.assert_allclose(statistics.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(statistics.std, std, rtol=1e-12)
    every_pixel = np.concatenate([np.asarray(decode_rgb(path)).reshape(-1, 3) for path in paths])
    assert abs(every_pixel.mean(axis=0) - mean).min() > 1  # so the test tells the two weightings apart
    assert statistics.num_images == 5 and statistics.unreadable == []


def test_workers_change_nothing(images):
    paths = find_images(str(images))
    assert np.array_equal(measure(paths, num_workers=2).fractions, measure(paths).fractions)


def test_the_command_writes_an_overlay(images, tmp_path, capsys):
    output = tmp_path / "new/own.yaml"
    main(["--images", str(images), "--num-workers", "0", "--output", str(output)])
    mean, std = slow_mean_and_std(find_images(str(images)))
    assert yaml.safe_load(output.read_text()) == {
        "INPUT": {"FORMAT": "RGB"},
        "MODEL": {"PIXEL_MEAN": mean.round(3).tolist(), "PIXEL_STD": std.round(3).tolist()},
    }
    assert f"# 5 of the 5 images of '{images}', 0 unreadable." in output.read_text()
    printed = capsys.readouterr().out
    assert f"{mean[0]:.3f}" in printed and "(ImageNet: 123.675 116.280 103.530)" in printed
    assert f"pretrain_moco.py --overlay {output}" in printed and "warning" not in printed
    main(["--images", str(images), "--num-workers", "0", "--output", str(output)])  # its own file is replaced


# ---- samples ---------------------------------------------------------------------------------------------


def test_a_sample_is_drawn_without_replacement_and_always_the_same():
    paths = [f"{number:03d}" for number in range(100)]
    sample = sample_paths(paths, 30)
    assert sample == sample_paths(paths, 30) == sorted(set(sample)) and len(sample) == 30
    assert set(sample) <= set(paths) and sample != paths[:30]
    assert sample_paths(paths, None) == sample_paths(paths, 100) == sample_paths(paths, 101) == paths
    with pytest.raises(ValueError, match="--num-images is 0; expected at least 1"):
        sample_paths(paths, 0)


def test_the_sample_alone_is_read(images, tmp_path, capsys):
    chosen = sample_paths(find_images(str(images)), 2)
    output = tmp_path / "own.yaml"
    main(["--images", str(images), "--num-images", "2", "--num-workers", "0", "--output", str(output)])
    assert "2 of 5" in capsys.readouterr().out
    found = yaml.safe_load(output.read_text())["MODEL"]["PIXEL_MEAN"]
    assert found == slow_mean_and_std(chosen)[0].round(3).tolist()


# ---- what is odd -----------------------------------------------------------------------------------------


def test_unreadable_images_are_named_and_left_out(tmp_path, capsys):
    good = write_random_images(tmp_path / "images", 100, size=8)
    (tmp_path / "images/broken.jpg").write_bytes(b"no image")
    main(["--images", str(tmp_path / "images"), "--num-workers", "0", "--output", str(tmp_path / "a.yaml")])
    printed = capsys.readouterr().out
    assert (
        f"unreadable  {tmp_path / 'images/broken.jpg'}: not an image" in printed and "100 of 101" in printed
    )
    found = yaml.safe_load((tmp_path / "a.yaml").read_text())["MODEL"]["PIXEL_STD"]
    assert found == slow_mean_and_std(map(str, good))[1].round(3).tolist()


def test_too_many_unreadable_images_stop_it(tmp_path, capsys):
    write_random_images(tmp_path / "images", 100, size=8)
    for name in "ab":
        (tmp_path / f"images/{name}.jpg").write_bytes(b"")
    with pytest.raises(SystemExit, match="2"):
        main(
            ["--images", str(tmp_path / "images"), "--num-workers", "0", "--output", str(tmp_path / "a.yaml")]
        )
    error = capsys.readouterr().err
    assert "2 of 102 images cannot be read, " in error and "0.01" in error
    assert "a.jpg' (empty file)" in error and "b.jpg' (empty file)" in error
    assert not (tmp_path / "a.yaml").exists()


def save_deep(folder, values):
    folder.mkdir()
    Image.fromarray(np.array(values, np.uint16)).save(folder / "deep.png")
    return find_images(str(folder))


def test_one_color_is_refused_with_the_reason(tmp_path):
    Image.new("RGB", (4, 4), (10, 20, 30)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="red is 10 .* 1 images"):
        measure([str(tmp_path / "a.png")])
    paths = save_deep(tmp_path / "deep", [[0, 50, 100, 120]])  # all 0 on the scale of 8 bits
    with pytest.raises(
        ValueError, match="red is 0 in all .*scaled from 0..65535 to 0..255.*give --range 0 4095"
    ):
        measure(paths)


@pytest.mark.parametrize(("top", "warned"), [(4095, True), (15000, True), (17000, False), (65535, False)])
def test_data_in_few_levels_are_warned_about(tmp_path, capsys, top, warned):
    save_deep(tmp_path / "deep", np.linspace(0, top, 1000).reshape(20, 50).round())
    main(["--images", str(tmp_path / "deep"), "--num-workers", "0", "--output", str(tmp_path / "a.yaml")])
    printed = capsys.readouterr().out
    assert ("warning" in printed) == warned
    if top == 4095:
        assert "between 0 and 16, 17 of 256" in printed and "12 bits" in printed


@pytest.mark.parametrize("output", ["a.yml", "recipe.yaml"])
def test_an_output_that_cannot_be_is_refused_before_reading(tmp_path, capsys, output):
    (tmp_path / "recipe.yaml").write_text("SEED: 1\n")
    with pytest.raises(SystemExit, match="2"):
        main(["--images", str(tmp_path / "not there"), "--output", str(tmp_path / output)])
    error = capsys.readouterr().err
    assert "is not replaced" in error if output == "recipe.yaml" else "expected a name that ends" in error
    assert (tmp_path / "recipe.yaml").read_text() == "SEED: 1\n"


# ---- through pre-training and convert to the detector -----------------------------------------------------


def pretrain_args(*words):
    return argument_parser().parse_args(
        ["--config-file", "Pretrain/moco_v2_R_50_200ep", "--images", "x", "--num-gpus", "0", *words]
    )


def test_overlay_stands_between_recipe_and_pairs(tmp_path):
    (tmp_path / "a.yaml").write_text("MODEL: {PIXEL_MEAN: [1., 2., 3.], PIXEL_STD: [4., 5., 6.]}\n")
    overlay = ("--overlay", str(tmp_path / "a.yaml"))
    cfg = build_config(pretrain_args(*overlay, "MODEL.PIXEL_STD", "[7.,8.,9.]"))
    assert (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD) == ([1.0, 2.0, 3.0], [7.0, 8.0, 9.0])
    (tmp_path / "a.yaml").write_text("MODEL: {ROI_HEADS: {NUM_CLASSES: 3}}\n")
    with pytest.raises(ValueError, match="MODEL.ROI_HEADS.NUM_CLASSES .*pre-training"):
        build_config(pretrain_args(*overlay))
    with pytest.raises(ValueError, match="'absent.yaml' does not exist"):
        build_config(pretrain_args("--overlay", "absent.yaml"))


def test_statistics_travel_to_the_detector(images, tmp_path):
    main(["--images", str(images), "--num-workers", "0", "--output", str(tmp_path / "own.yaml")])
    small = ("MODEL.ENCODER.ARCH", "resnet18", "MODEL.MOCO.QUEUE_SIZE", "256")
    cfg = build_config(
        pretrain_args("--overlay", str(tmp_path / "own.yaml"), *small, "OUTPUT_DIR", str(tmp_path))
    )
    model = MoCo(cfg)
    checkpointer = RunCheckpointer(model, cfg, arch="resnet18", save_to_disk=True, num_images=5)
    checkpointer.save("model_final", iteration=0)
    mean = slow_mean_and_std(find_images(str(images)))[0].round(3).tolist()
    assert (
        torch.load(tmp_path / "model_final.pth", weights_only=True)["moco_det"]["preprocessing"]["pixel_mean"]
        == mean
    )

    convert(tmp_path / "model_final.pth", tmp_path / "own_r18.pkl")
    own = str(tmp_path / "own_r18.yaml")
    detector = get_config("toy/faster_rcnn_R_18_FPN", own)
    assert detector.MODEL.WEIGHTS == str(tmp_path / "own_r18.pkl") and detector.MODEL.PIXEL_MEAN == mean
    weights = read_weights(detector.MODEL.WEIGHTS)
    check_preprocessing(detector, weights, read_init(own))
    with pytest.raises(ValueError, match=f"PIXEL_MEAN is .*123.675.*expected .*Fix: use --init {own}"):
        check_preprocessing(get_config("toy/faster_rcnn_R_18_FPN", "moco"), weights, read_init("moco"))


# ---- many channels ----------------------------------------------------------------------------------------


def save_bands(folder, count=6, channels=5, dtype=np.float32):
    rng = np.random.default_rng(1)
    folder.mkdir()
    for number in range(count):
        values = rng.normal(size=(9 + number, 12, channels)) * 10 ** np.arange(channels) + number
        np.save(folder / f"{number}.npy", values.astype(dtype))
    return find_images(str(folder))


def test_a_measured_range_is_percentiles_of_each_channel(tmp_path, capsys):
    paths = save_bands(tmp_path / "bands")
    output = tmp_path / "own.yaml"
    main(
        ["--images", str(tmp_path / "bands"), "--channels", "5", "--range", "measured", "--format", "L"]
        + ["--num-workers", "0", "--output", str(output)]
    )
    found = yaml.safe_load(output.read_text())
    pixels = np.concatenate([np.load(path).reshape(-1, 5) for path in paths])
    expected = np.percentile(pixels, (0.1, 99.9), axis=0).T.flatten()
    np.testing.assert_allclose(found["INPUT"].pop("RANGE"), expected, rtol=1e-4)
    assert found["INPUT"] == {"FORMAT": "L", "CHANNELS": 5}
    said = capsys.readouterr().out
    assert "range " in said and "mean, L" in said and "ImageNet" not in said
    limits = expected.reshape(5, 2)
    levels = [np.load(path).reshape(-1, 5) for path in paths]
    levels = [((v - limits[:, 0]) * 255 / np.ptp(limits, axis=1)).round().clip(0, 255) for v in levels]
    mean = np.mean([v.mean(axis=0) for v in levels], axis=0)
    np.testing.assert_allclose(found["MODEL"]["PIXEL_MEAN"], mean, atol=0.02)


def test_a_given_range(tmp_path, capsys):
    save_bands(tmp_path / "bands", channels=2)
    words = ["--images", str(tmp_path / "bands"), "--num-workers", "0", "--output", str(tmp_path / "a.yaml")]
    main([*words, "--channels", "2", "--range", "-2", "6"])
    assert yaml.safe_load((tmp_path / "a.yaml").read_text())["INPUT"] == {
        "FORMAT": "L",
        "CHANNELS": 2,
        "RANGE": [-2.0, 6.0],
    }
    for more, message in (
        (["--channels", "2", "--range", "much"], "expected numbers, or measured"),
        (["--channels", "2", "--range", "5", "4"], "--range is [5.0, 4.0] with 2 channels"),
        (["--channels", "2", "--range", "5", "6", "--format", "RGB"], "--format is RGB with 2 channels"),
        (["--channels", "0"], "--channels is 0; expected 1 to 16"),
        (["--channels", "4", "--range", "0", "1"], "has 2 channels of 32 bits where INPUT.CHANNELS is 4"),
        (["--channels", "2"], "have no stated range"),
        (["--range", "measured"], "none of the images can be read"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main([*words, *more])
        assert message in capsys.readouterr().err
