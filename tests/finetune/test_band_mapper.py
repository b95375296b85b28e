"""The mapper on images of many channels: each is cropped, scaled and flipped as it would be alone."""

import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetMapper
from PIL import Image

from moco_det.data.image_format import ImageFormat
from moco_det.finetune import look
from moco_det.finetune.check_findings import FAULT, WARNING, Findings
from moco_det.finetune.look_images import look_at_images
from moco_det.finetune.look_records import as_key, use_of
from moco_det.finetune.mappers import build_mapper
from moco_det.finetune.record_mapper import read_image
from moco_det.model_zoo import get_config

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 64, 5), dtype=np.uint8)
PIXELS[:, :30, 3] = 0  # as transparency it would make all other channels black


def config(channels, *pairs, task="toy/faster_rcnn_R_18_FPN", order="RGB"):
    numbers = str([100.0] * channels)
    words = ["INPUT.CHANNELS", channels, "MODEL.PIXEL_MEAN", numbers, "MODEL.PIXEL_STD", numbers]
    cfg = get_config(task)
    cfg.merge_from_list([*map(str, words), "INPUT.FORMAT", order, "INPUT.CROP.ENABLED", "True", *pairs])
    return cfg


def record(path, **more):
    box = {"bbox": [3, 4, 40, 40], "bbox_mode": 0, "category_id": 0}
    return {"file_name": str(path), "height": 48, "width": 64, "annotations": [box], **more}


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_each_channel_is_what_detectron2_makes_of_a_color(tmp_path, channels, is_train):
    np.save(tmp_path / "a.npy", PIXELS[..., :channels])
    Image.fromarray(PIXELS[..., :3]).save(tmp_path / "rgb.png")
    Image.fromarray(PIXELS[..., [channels - 1] * 3]).save(tmp_path / "last.png")
    for seed in range(3):
        found = []
        for mapper, name in (
            (build_mapper(config(channels, order="RGB" if channels > 2 else "L"), is_train), "a.npy"),
            (DatasetMapper(config(3), is_train), "rgb.png"),
            (DatasetMapper(config(3), is_train), "last.png"),
        ):
            np.random.seed(seed)
            found.append(mapper(record(tmp_path / name)))
        images = [result["image"] for result in found]
        assert images[0].shape[0] == channels and images[0].dtype == torch.uint8
        assert torch.equal(images[0][:3], images[1][:channels])
        assert torch.equal(images[0][-1], images[2][0])
        if is_train:
            assert torch.equal(found[0]["instances"].gt_boxes.tensor, found[1]["instances"].gt_boxes.tensor)


@pytest.mark.parametrize("name", ["a.tif", "a.npy"])
@pytest.mark.parametrize(("channels", "turned"), [(4, 6), (4, 3), (4, 1), (3, 1)])
@pytest.mark.parametrize("labels", [(64, 48), (48, 64), (64, 64)])
def test_the_look_accepts_the_sizes_that_training_accepts(tmp_path, name, channels, turned, labels):
    pixels = np.ascontiguousarray(PIXELS[..., :channels])
    if name == "a.npy":
        np.save(tmp_path / name, pixels)
    else:
        tifffile = pytest.importorskip("tifffile")
        more = {"extratags": [(274, "H", 1, turned, True)], "photometric": "rgb", "planarconfig": "contig"}
        tifffile.imwrite(tmp_path / name, pixels, **more)
    of_labels = dict(zip(("width", "height"), labels, strict=True))
    findings, image_format = Findings("a"), ImageFormat(channels)
    look_at_images([record(tmp_path / name, **of_labels)], findings, image_format=image_format)
    try:
        read = read_image(record(tmp_path / name, **of_labels), image_format)
    except ValueError:
        read = None
    assert (read is None) == bool(findings.of(FAULT))
    if read is not None:
        assert read.shape[1::-1] == labels
        assert bool(findings.of(WARNING)) == (name == "a.tif" and turned != 1)


def test_three_of_them_are_turned_for_weights_that_want_bgr(tmp_path):
    np.save(tmp_path / "a.npy", PIXELS)
    rgb, bgr = (
        build_mapper(config(5, order=order, task="toy/faster_rcnn_R_18_FPN"), False)(
            record(tmp_path / "a.npy")
        )
        for order in ("RGB", "BGR")
    )
    assert torch.equal(bgr["image"], rgb["image"][[2, 1, 0, 3, 4]])


def test_semantic_segmentation(tmp_path):
    np.save(tmp_path / "a.npy", PIXELS)
    labels = (PIXELS[..., 0] > 100).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "labels.png")
    cfg = config(
        5, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", "(32, 40)", task="toy/fcn_R_50_dilated_voc"
    )
    result = build_mapper(cfg, True)(
        record(tmp_path / "a.npy", sem_seg_file_name=str(tmp_path / "labels.png"))
    )
    assert result["image"].shape == (5, 32, 40) and result["sem_seg"].shape == (32, 40)


def test_the_look_before_a_run(tmp_path):
    np.save(tmp_path / "a.npy", PIXELS)
    use = use_of(config(5, "INPUT.RANGE", "(0, 200)"), train=True)
    assert (use.channels, use.range) == (5, (0, 200)) and json.loads(as_key(use))["channels"] == 5
    for image_format, size, message in (
        (ImageFormat(5), 48, ""),
        (ImageFormat(3), 48, "has 5 channels of 8 bits where INPUT.CHANNELS is 3; give INPUT.CHANNELS 5"),
        (ImageFormat(5), 40, "a.npy has 64 x 48 pixels, its labels say 64 x 40"),
    ):
        findings = Findings("a")
        look_at_images([record(tmp_path / "a.npy", height=size)], findings, image_format=image_format)
        faults = " ".join(map(str, findings.of(FAULT)))
        assert message in faults and bool(message) == bool(faults)
    assert look.look_at_images is look_at_images


def test_detectron2_draws_no_four_channels():
    from moco_det.finetune.preflight import check_run

    with pytest.raises(ValueError, match="VIS_PERIOD is 10 with INPUT.CHANNELS 4"):
        check_run(config(4, "VIS_PERIOD", "10"), None, None)
