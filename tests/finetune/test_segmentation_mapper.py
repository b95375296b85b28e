import numpy as np
import pytest
import torch
from PIL import Image

from moco_det.finetune.segmentation_mapper import (
    RandomScale,
    SegmentationMapper,
    build_mapper,
    read_labels,
)
from moco_det.finetune.trainer import Trainer
from moco_det.model_zoo import get_config

RECIPE = "PascalVOC-SemanticSegmentation/fcn_R_50_dilated_30k"
SIDE = 65


@pytest.fixture(scope="module")
def labels():
    """Every label of VOC, in blocks, with void between them."""
    blocks = np.random.default_rng(0).permutation(np.arange(25) % 21).reshape(5, 5)
    labels = blocks.repeat(12, 0).repeat(14, 1).astype(np.uint8)  # 60 x 70
    labels[::12] = 255
    return labels


@pytest.fixture(scope="module")
def record(tmp_path_factory, labels):
    """An image whose red channel is ten times the label, and the labels as VOC stores them."""
    folder = tmp_path_factory.mktemp("voc")
    image = np.stack([np.where(labels == 255, 255, labels * 10)] * 3, axis=-1).astype(np.uint8)
    Image.fromarray(image).save(folder / "image.png")
    indexed = Image.fromarray(labels)
    indexed.putpalette(np.random.default_rng(1).integers(0, 256, 768).tolist())
    indexed.save(folder / "labels.png")
    assert Image.open(folder / "labels.png").mode == "P"
    return {"file_name": str(folder / "image.png"), "sem_seg_file_name": str(folder / "labels.png")}


def make_cfg(scale=(1.0, 1.0), crop=SIDE, flip="none"):
    cfg = get_config(RECIPE, "random")
    cfg.INPUT.RANDOM_SCALE = scale
    cfg.INPUT.CROP.SIZE = [crop, crop] if isinstance(crop, int) else list(crop)
    cfg.INPUT.RANDOM_FLIP = flip
    return cfg


def test_the_mapper_yields_the_array_that_was_written(record, labels):
    found = SegmentationMapper(make_cfg(crop=labels.shape), is_train=True)(record)
    assert found["sem_seg"].dtype == torch.int64
    assert np.array_equal(found["sem_seg"].numpy(), labels)
    assert (found["height"], found["width"]) == labels.shape
    assert record.keys() == {"file_name", "sem_seg_file_name"}  # as it was


def test_small_images_are_padded_with_void_and_about_the_mean_color(record, labels):
    found = SegmentationMapper(make_cfg(crop=(80, 100)), is_train=True)(record)
    image, truth = found["image"].numpy(), found["sem_seg"].numpy()
    assert image.shape == (3, 80, 100) and truth.shape == (80, 100)
    assert np.array_equal(truth[:60, :70], labels)
    assert np.all(truth[60:] == 255) and np.all(truth[:, 70:] == 255)
    assert np.all(np.abs(image[:, 60:].astype(float) - 114.5) <= 1)


@pytest.mark.parametrize("flip", ["none", "horizontal"])
def test_image_and_labels_move_together(record, flip):
    """Whatever was sampled, a pixel's color tells its label."""
    mapper = SegmentationMapper(make_cfg((0.5, 2.0), flip=flip), is_train=True)
    np.random.seed(0)
    sizes, right = set(), 0
    for _ in range(20):
        found = mapper(record)
        assert found["image"].shape == (3, SIDE, SIDE) and found["sem_seg"].shape == (SIDE, SIDE)
        image, truth = found["image"][0].numpy().astype(int), found["sem_seg"].numpy()
        known = truth != 255
        sizes.add(int(known.sum()))
        right += np.mean(np.abs(image[known] - 10 * truth[known]) <= 5) / 20  # not so where colors blend
    assert right > 0.75 and len(sizes) > 5


def test_flips_happen_when_asked_for(record, labels):
    np.random.seed(0)
    mapper = SegmentationMapper(make_cfg(crop=labels.shape, flip="horizontal"), is_train=True)
    found = [mapper(record)["sem_seg"].numpy() for _ in range(12)]
    flipped = [np.array_equal(one, labels[:, ::-1]) for one in found]
    assert any(flipped) and not all(flipped)
    assert all(f or np.array_equal(one, labels) for f, one in zip(flipped, found, strict=True))


def test_crops_are_taken_everywhere(record, labels):
    """Rows and columns apart: detectron2's FixedSizeCrop takes those along the diagonal only."""
    np.random.seed(0)
    height, width = labels.shape
    mapper = SegmentationMapper(make_cfg(crop=(height - 2, width - 2)), is_train=True)
    found = [mapper(record)["sem_seg"].numpy() for _ in range(90)]
    for top, left in np.ndindex(3, 3):
        place = labels[top : top + height - 2, left : left + width - 2]
        assert any(np.array_equal(crop, place) for crop in found), (top, left)


def test_scales_are_drawn_from_the_whole_range():
    np.random.seed(0)
    image = np.zeros((100, 200, 3), dtype=np.uint8)
    sizes = [RandomScale(0.5, 2.0).get_transform(image) for _ in range(300)]
    heights = [t.new_h for t in sizes]
    assert 50 <= min(heights) < 60 and 190 < max(heights) <= 200
    assert np.mean(heights) == pytest.approx(125, abs=6)
    assert all(abs(t.new_w - 2 * t.new_h) <= 1 for t in sizes)


def test_in_testing_the_image_stays_as_it_is_and_labels_are_not_read(record, labels):
    found = SegmentationMapper(make_cfg(), is_train=False)(dict(record, sem_seg_file_name="gone.png"))
    assert found["image"].shape == (3, *labels.shape)
    assert "sem_seg" not in found and "sem_seg_file_name" not in found


def test_plain_indices_are_read_alike(tmp_path, labels):
    Image.fromarray(labels).save(tmp_path / "plain.png")
    assert np.array_equal(read_labels(str(tmp_path / "plain.png")), labels)
    assert read_labels(str(tmp_path / "plain.png"), dtype=int).dtype == int


def test_labels_in_color_are_refused(tmp_path, labels):
    Image.fromarray(labels).convert("RGB").save(tmp_path / "colors.png")
    with pytest.raises(ValueError, match=r"colors.png' has the mode RGB; expected indices"):
        read_labels(str(tmp_path / "colors.png"))


def test_labels_of_another_size_are_refused(tmp_path, record, labels):
    Image.fromarray(labels[:50]).save(tmp_path / "short.png")
    mapper = SegmentationMapper(make_cfg(), is_train=True)
    with pytest.raises(ValueError, match=r"short.png' is \(50, 70\) .*, expected its image's \(60, 70\)"):
        mapper(dict(record, sem_seg_file_name=str(tmp_path / "short.png")))


def test_labels_beyond_the_classes_are_refused(record):
    cfg = make_cfg()
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 19
    with pytest.raises(ValueError, match="holds the label 20, expected 0 to 18 .*NUM_CLASSES is 19.* or 255"):
        SegmentationMapper(cfg, is_train=True)(record)


@pytest.mark.parametrize("key, value", [("ENABLED", False), ("TYPE", "relative")])
def test_crops_of_no_fixed_size_are_refused(key, value):
    cfg = make_cfg()
    cfg.INPUT.CROP[key] = value
    with pytest.raises(ValueError, match=f"INPUT.CROP.{key}.* {value!r}.*'absolute'"):
        build_mapper(cfg, is_train=True)


def test_detectors_keep_their_own_mapper():
    assert build_mapper(get_config("toy/faster_rcnn_R_18_FPN"), is_train=True) is None


@pytest.mark.parametrize("sampler", ["TrainingSampler", "RandomSubsetTrainingSampler"])
@pytest.mark.parametrize("task", ["voc", "cityscapes"])
def test_the_trainer_gives_batches_of_one_size(sampler, task):
    cfg = get_config(f"toy/fcn_R_50_dilated_{task}", "random")
    cfg.SOLVER.IMS_PER_BATCH, cfg.INPUT.CROP.SIZE, cfg.SEED = 4, [33, 49], 1
    cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.RANDOM_SUBSET_RATIO = sampler, 1.0
    batch = next(iter(Trainer.build_train_loader(cfg)))
    assert [tuple(item["image"].shape) for item in batch] == [(3, 33, 49)] * 4
    assert [tuple(item["sem_seg"].shape) for item in batch] == [(33, 49)] * 4
    found = torch.stack([item["sem_seg"] for item in batch]).unique().tolist()
    assert found[-1] == 255 and all(label < cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES for label in found[:-1])
    tested = next(iter(Trainer.build_test_loader(cfg, cfg.DATASETS.TEST[0])))
    assert tuple(tested[0]["image"].shape) == (3, 64, 64) and "sem_seg" not in tested[0]
