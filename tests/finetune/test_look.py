"""What would stop a run, or spoil its labels or its metric, is found before the first step and named."""

import io
import itertools
import json
import math
import os
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import own_data
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import BoxMode
from PIL import Image
from pycocotools import mask as mask_utils
from pycocotools.cocoeval import COCOeval

from moco_det.data.datasets import own as own_datasets
from moco_det.data.decoding import UnreadableImage, decode_rgb
from moco_det.data.image_format import RGB, ImageFormat
from moco_det.data.unreadable import begin_list
from moco_det.finetune import command, look, look_images, look_records, look_semantic
from moco_det.finetune.check_datasets import main as check_main
from moco_det.finetune.check_findings import Files, Findings
from moco_det.finetune.coco_evaluator import Truth
from moco_det.finetune.look_records import Use
from moco_det.finetune.mappers import build_mapper
from moco_det.finetune.record_mapper import SkipUnreadable, read_image
from moco_det.finetune.trainer import Trainer
from moco_det.model_zoo import get_config
from moco_det.utils.errors import user_errors

BOXES, MASKS, SEMANTIC = "toy/faster_rcnn_R_18_FPN", "toy/mask_rcnn_R_18_FPN", "toy/semantic_fpn_R_18"


@pytest.fixture(autouse=True)
def catalogs(monkeypatch, tmp_path):
    """What a test registers is gone after it, and what it finds is kept nowhere else."""
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", dict(catalog.data))
    monkeypatch.setattr(own_datasets, "_registered", {})
    monkeypatch.setenv("MOCO_DET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def coco(tmp_path):
    """The label files of the sets "a" (to train on) and "b" (to test on)."""
    files = [own_data.coco(tmp_path, split, start=start)[0] for split, start in (("train", 1), ("val", 50))]
    for name, file in zip("ab", files, strict=True):
        own_datasets.register_coco(name, file, str(tmp_path / "images"))
    return files


def config(recipe, *pairs):
    cfg = get_config(recipe, "random")
    cfg.merge_from_list(["DATASETS.TRAIN", ("a",), "DATASETS.TEST", ("b",), *pairs])
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    return cfg


def warnings(recipe, *pairs):
    return [f"{name}: {text}" for name, text in look.look_before_run(config(recipe, *pairs), False)]


def of_annotations(change):
    return lambda content: [change(annotation) for annotation in content["annotations"]] and None


def to_run_lengths(annotation):
    found = mask_utils.frPyObjects(annotation["segmentation"], own_data.SIZE[1], own_data.SIZE[0])[0]
    annotation["segmentation"] = {"size": found["size"], "counts": found["counts"].decode()}


def crowd(annotation):
    annotation["iscrowd"] = 1


def to_corners(annotation):
    x, y, width, height = annotation["bbox"]
    annotation["bbox"] = [x, y, x + width, y + height]


def second_only(change):
    return lambda annotation: change(annotation) if annotation["id"] == 2 else None


TRAIN_FAULTS = [
    (
        MASKS,
        to_run_lengths,
        "run-length or bit mask where INPUT.MASK_FORMAT is polygon: object 1 of train0.jpg.*bitmask",
    ),
    (MASKS, lambda a: a.pop("segmentation"), "object without a mask, .*recipe without masks"),
    (
        MASKS,
        second_only(lambda a: a.pop("segmentation")),
        "1 x object without a mask.*object 2 of train0.jpg",
    ),
    (MASKS, second_only(lambda a: a.update(segmentation=[])), "1 x object without a mask"),
    (
        BOXES,
        second_only(lambda a: a.pop("bbox")),
        "annotation 2 .no field 'bbox'.* .give each annotation a bbox: x, y, w",
    ),
    (BOXES, second_only(lambda a: a.update(bbox=[1, 2, 3])), "malformed annotation.*annotation 2"),
    (BOXES, second_only(lambda a: a.update(category_id=9)), "unknown category id: 9 "),
    (
        BOXES,
        lambda a: a.update(bbox=[0.1, 0.2, 0.5, 0.5], segmentation=[]),
        "boxes between 0 and 1.*give pixels",
    ),
    (BOXES, to_corners, "look like two corners .*: all of them, 4 of which .*give x, y, width and height"),
    (BOXES, second_only(lambda a: a.update(bbox=[9, 9, -5, 4])), "corners are swapped.*annotation 2"),
    (BOXES, second_only(lambda a: a["bbox"].append(30)), "annotation 2 .bbox has 5 numbers"),
    (BOXES, crowd, "all 8 objects are iscrowd.*set iscrowd to 0"),
]


@pytest.mark.parametrize(("recipe", "change", "message"), TRAIN_FAULTS)
def test_what_training_would_stop_at(coco, recipe, change, message):
    own_data.edit(coco[0], of_annotations(change))
    with pytest.raises(ValueError, match=f"data set 'a' cannot be trained on: .*{message}"):
        warnings(recipe)


def test_what_no_rule_knows_is_found_by_mapping(coco):
    def nest(annotation):
        annotation["segmentation"] = [["x", *annotation["segmentation"][0][1:]]]

    own_data.edit(coco[0], of_annotations(second_only(nest)))
    records = DatasetCatalog.get("a")
    findings = Findings("a")
    look_records.map_records(records, Use(True, "polygon"), findings)
    assert "1 x record that cannot be mapped: train0.jpg" in str(*findings.of("fault"))
    findings = Findings("a")
    look_records.map_records(records, Use(True, ""), findings)
    assert not findings.of("fault")


def test_no_object_at_all(coco):
    own_data.edit(coco[0], lambda content: content["annotations"].clear())
    with pytest.raises(ValueError, match="no object in 4 images"):
        warnings(BOXES)


def test_run_lengths_are_fine_as_bitmasks(coco):
    own_data.edit(coco[0], of_annotations(to_run_lengths))
    assert not warnings(MASKS, "INPUT.MASK_FORMAT", "bitmask")


def test_a_test_set_without_masks_is_refused_for_a_recipe_with_them(coco):
    own_data.edit(coco[1], of_annotations(lambda a: a.pop("segmentation")))
    with pytest.raises(ValueError, match="'b' .*8 x test object .*mask.*annotation 1"):
        warnings(MASKS)
    assert not warnings(BOXES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (of_annotations(crowd), "all 8 objects are iscrowd, which the metric leaves out .set iscrowd to 0"),
        (lambda content: content["annotations"].clear(), "no object; leave the list of annotations out"),
    ],
)
def test_a_test_set_in_which_nothing_is_measured_is_refused(coco, change, message):
    own_data.edit(coco[1], change)
    with pytest.raises(ValueError, match=f"'b' cannot be tested on: .*nothing to measure: {message}"):
        warnings(BOXES)
    own_data.edit(coco[1], lambda content: content.pop("annotations"))
    assert warnings(BOXES) == ["b: 1 x label file without annotations: val.json"]


def test_names_of_classes_that_look_the_same_are_named(coco):
    for file in coco:
        own_data.edit(file, lambda content: content["categories"][1].update(name="Bird "))
    found = "1 x classes whose names differ in case or blanks alone: bird and Bird "
    assert warnings(BOXES) == [f"a: {found}", f"b: {found}"]


def test_names_of_classes_that_are_numbers_are_refused(coco):
    """They are refused also where detectron2's own registration reads them, which no check of ours has seen."""
    MetadataCatalog.pop("a"), DatasetCatalog.pop("a")
    own_data.edit(coco[0], lambda content: content["categories"][1].update(name=7))
    register_coco_instances("a", {}, coco[0], os.path.dirname(coco[0]) + "/images")
    with pytest.raises(ValueError, match="'a' .*category record: number 1 .name 7 "):
        warnings(BOXES)


@pytest.mark.parametrize("name", [lambda number: number - 1, str, float], ids=["from 0", "words", "floats"])
def test_ids_of_annotations_do_not_change_the_metric(coco, name):
    """pycocotools takes a match with the annotation 0 for none."""

    def perfect_ap():
        truth = Truth(coco[1])
        found = [a | {"score": 1.0} for a in json.loads(Path(coco[1]).read_text())["annotations"]]
        metric = COCOeval(truth, truth.loadRes(found), "bbox")
        metric.evaluate(), metric.accumulate(), metric.summarize()
        return metric.stats[0]

    assert perfect_ap() == pytest.approx(1)
    own_data.edit(coco[1], of_annotations(lambda a: a.update(id=name(a["id"]))))
    assert perfect_ap() == pytest.approx(1)
    assert "filled in for it: id of 8" in warnings(BOXES)[0]


@pytest.mark.parametrize(
    "area", [str, lambda area: -1, lambda area: math.nan], ids=["word", "negative", "nan"]
)
def test_areas_of_no_use_are_measured(coco, area):
    before = [a["area"] for a in Truth(coco[1]).dataset["annotations"]]
    own_data.edit(coco[1], of_annotations(lambda a: a.update(area=area(a["area"]))))
    assert [a["area"] for a in Truth(coco[1]).dataset["annotations"]] == before
    assert "filled in for it: area of 8" in warnings(BOXES)[0]


def test_sizes_with_a_fraction_of_zero_are_whole_numbers_to_the_model(coco):
    """Masks are pasted into a picture of this size."""
    own_data.edit(
        coco[1], lambda content: [i.update(width=64.0, height=48.0) for i in content["images"]] and None
    )
    record = build_mapper(config(MASKS), False)(DatasetCatalog.get("b")[0])
    assert [type(record[side]) for side in ("width", "height")] == [int, int]


def test_one_large_box_does_not_make_corners_of_all(coco):
    own_data.edit(coco[0], of_annotations(second_only(to_corners)))
    assert warnings(BOXES) == ["a: 1 x box outside its image: annotation 2 of image 1"]


def test_fields_that_the_metric_needs_are_filled_in(coco):
    def strip(annotation):
        del annotation["area"], annotation["iscrowd"]

    before = {a["id"]: (a["area"], a["iscrowd"]) for a in Truth(coco[1]).dataset["annotations"]}
    own_data.edit(coco[1], of_annotations(strip))
    assert warnings(BOXES) == [
        "b: 1 x field that the metric cannot use as it is, filled in for it: iscrowd of 8, area of 8"
    ]
    filled = {a["id"]: (a["area"], a["iscrowd"]) for a in Truth(coco[1]).dataset["annotations"]}
    assert filled == before  # here the masks are the boxes


# ---- images ----------------------------------------------------------------------------------------------


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 150])


def replace(image):
    return lambda path: image.save(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (truncate, "1 x image that cannot be read: train2.jpg .*truncated.*MAX_UNREADABLE 0.01"),
        (lambda path: path.write_bytes(b""), "train2.jpg .empty file"),
        (lambda path: path.write_text("<html>"), "train2.jpg .not an image of a known format"),
        (lambda path: path.unlink(), "1 x image: images/train2.jpg"),
        (lambda path: (path.unlink(), path.symlink_to("gone.jpg")), "train2.jpg .*No such file"),
        (lambda path: (path.unlink(), path.mkdir()), "train2.jpg .*Is a directory"),
        (
            replace(Image.new("RGB", (32, 32))),
            "another size than its labels say: train2.jpg has 32 x 32 pixels, its labels say 64 x 48",
        ),
    ],
)
def test_images_that_a_run_would_stop_at_are_named(coco, tmp_path, change, message):
    change(tmp_path / "images/train2.jpg")
    with pytest.raises(ValueError, match=f"'a' cannot be trained on: .*{message}"):
        warnings(BOXES)


def test_null_is_filled_in_for_the_metric_and_refused_where_training_would_drop_it(coco):
    before = [(a["area"], a["iscrowd"]) for a in Truth(coco[1]).dataset["annotations"]]
    for file in coco:
        own_data.edit(file, of_annotations(lambda a: a.update(area=None, iscrowd=None)))
    assert [(a["area"], a["iscrowd"]) for a in Truth(coco[1]).dataset["annotations"]] == before
    with pytest.raises(ValueError, match="'a' .*8 x iscrowd .*None in train0.jpg"):
        warnings(BOXES)


def test_few_unreadable_training_images_are_accepted_and_no_test_image_is(coco, tmp_path):
    truncate(tmp_path / "images/train2.jpg")
    (shown,) = warnings(BOXES, "DATASETS.MAX_UNREADABLE", 0.25)
    assert "train2.jpg" in shown
    truncate(tmp_path / "images/val1.jpg")
    with pytest.raises(ValueError, match="'b' .*1 x image .*val1.jpg"):
        warnings(BOXES, "DATASETS.MAX_UNREADABLE", 0.25)


def turned(path, labeled_as_stored):
    """An image whose EXIF says that it is to be turned by 90 degrees."""
    image = Image.open(path).convert("RGB")
    exif = image.getexif()
    exif[0x0112] = 6
    (image if labeled_as_stored else image.rotate(90, expand=True)).save(path, exif=exif, quality=95)


@pytest.mark.parametrize(
    ("as_stored", "message"),
    [
        (True, "whose labels do not: read as stored, unlike in pre-training: train0.jpg"),
        (False, "upright one: tr"),
    ],
)
def test_images_that_exif_turns_are_read_where_their_labels_are(coco, tmp_path, as_stored, message):
    path = tmp_path / "images/train0.jpg"
    plain = np.asarray(Image.open(path), dtype=float)
    turned(path, as_stored)
    assert message in warnings(BOXES)[0]
    read = read_image(DatasetCatalog.get("a")[0], RGB)
    assert read.shape == plain.shape and np.abs(read - plain).mean() < 6


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "I;16", "LA", "CMYK"])
def test_pixels_are_those_of_pretraining(tmp_path, mode):
    values = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 20
    image = (
        Image.fromarray(values)
        if mode == "I;16"
        else Image.fromarray((values >> 8).astype(np.uint8)).convert(mode)
    )
    path = str(tmp_path / ("x.tif" if mode == "CMYK" else "x.png"))
    image.save(path)
    read = read_image({"file_name": path}, ImageFormat(channel_order="BGR"))
    assert np.array_equal(read[:, :, ::-1], np.asarray(decode_rgb(path)))
    if mode in ("RGB", "L", "P", "CMYK"):  # detectron2 reads these the same
        assert np.array_equal(read, utils.read_image(path, "BGR"))


def test_sixteen_bits_are_said(coco, tmp_path):
    pixels = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    Image.fromarray(pixels).save(tmp_path / "images/train1.png")
    own_data.edit(coco[0], lambda content: content["images"][1].update(file_name="train1.png"))
    assert warnings(BOXES) == [
        "a: 1 x image of 16 bits, read as in pre-training (0 to 65535 becomes 0 to 255): train1.png"
    ]


def test_the_mapper_gives_what_detectron2s_gives(coco):
    from detectron2.data import DatasetMapper

    cfg = config(MASKS)
    for is_train in (True, False):
        own, stock = build_mapper(cfg, is_train), DatasetMapper(cfg, is_train)
        for record in DatasetCatalog.get("a"):
            results = []
            for mapper in (own, stock):
                np.random.seed(3)
                results.append(mapper(record))
            assert results[0]["image"].equal(results[1]["image"])
            assert results[0].keys() == results[1].keys()
            if is_train:
                boxes = [result["instances"].gt_boxes.tensor for result in results]
                assert boxes[0].equal(boxes[1]) and len(boxes[0])


def test_an_image_that_breaks_while_training_is_named_and_passed_over(coco, tmp_path):
    cfg = config(BOXES, "OUTPUT_DIR", str(tmp_path), "DATASETS.MAX_UNREADABLE", 0.25)
    mapper = SkipUnreadable(build_mapper(cfg, True), cfg, 4)
    records = DatasetCatalog.get("a")
    (tmp_path / "images/train0.jpg").write_bytes(b"x")
    assert mapper(records[0]) is None and mapper(records[0]) is None and mapper(records[1]) is not None
    assert (tmp_path / "unreadable_images.txt").read_text().count("train0.jpg\tnot an image") == 1
    (tmp_path / "images/train1.jpg").unlink()
    with pytest.raises(ValueError, match="2 of the 4 images.*MAX_UNREADABLE = 0.25"):
        mapper(records[1])


@pytest.fixture
def many(coco, tmp_path):
    """A config that trains on 12 images, of which 8 are broken and 5 may be."""
    own_data.coco(tmp_path, "many", count=12, start=100)
    own_datasets.register_coco("many", str(tmp_path / "many.json"), str(tmp_path / "images"))
    for number in range(8):
        (tmp_path / f"images/many{number}.jpg").write_bytes(b"x")
    pairs = ["DATASETS.TRAIN", ("many",), "OUTPUT_DIR", str(tmp_path), "SOLVER.IMS_PER_BATCH", 1]
    return config(BOXES, *pairs, "DATALOADER.NUM_WORKERS", 0, "DATASETS.MAX_UNREADABLE", 5 / 12)


def test_the_share_of_unreadable_images_holds_for_all_workers_and_processes_together(many, tmp_path):
    """Each has a mapper of its own, and meets no more than are accepted."""
    records, mapper = DatasetCatalog.get("many"), build_mapper(many, True)
    workers = [SkipUnreadable(mapper, many, len(records)) for _ in range(3)]
    for number in (0, 1, 2, 3, 4, 0, 1):
        assert workers[number % 3](records[number]) is None
    with pytest.raises(ValueError, match="6 of the 12 images"):
        workers[1](records[7])
    assert len((tmp_path / "unreadable_images.txt").read_text().splitlines()) == 6


@pytest.mark.parametrize("sampler", ["TrainingSampler", "RandomSubsetTrainingSampler"])
def test_the_share_of_unreadable_images_holds_for_each_sampler(many, sampler):
    many.DATALOADER.SAMPLER_TRAIN, many.DATALOADER.RANDOM_SUBSET_RATIO = sampler, 1.0
    with pytest.raises(ValueError, match="6 of the 12 images"):
        list(itertools.islice(Trainer.build_train_loader(many), 200))


def test_the_list_of_unreadable_images_goes_on_in_a_resumed_run_and_not_in_a_new_one(many, tmp_path):
    records, mapper = DatasetCatalog.get("many"), build_mapper(many, True)
    run, resumed = (SkipUnreadable(mapper, many, len(records)) for _ in range(2))
    for number in range(5):
        assert run(records[number]) is None
    with pytest.raises(ValueError, match="6 of the 12 images"):
        resumed(records[5])
    begin_list(many.OUTPUT_DIR, True)
    with pytest.raises(ValueError, match="6 of the 12 images"):
        resumed(records[5])
    begin_list(many.OUTPUT_DIR, False)
    assert resumed(records[5]) is None


def test_errors_of_a_loaders_worker_end_in_one_sentence(coco, tmp_path, capsys):
    cfg = config(BOXES, "DATALOADER.NUM_WORKERS", 1)
    (tmp_path / "images/val0.jpg").write_bytes(b"x")

    @user_errors
    def load():
        list(Trainer.build_test_loader(cfg, "b"))

    with pytest.raises(SystemExit):
        load()
    error = capsys.readouterr().err
    assert error.startswith("error: cannot read image") and "val0.jpg" in error and error.count("\n") == 1


def write_truncated(path, kind):
    """A file of a format whose end is missing, under a name that says nothing of it."""
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    image, more = Image.fromarray(pixels), {}
    if kind == "thumbnail":  # in the header, with an end of its own in the file's last bytes
        thumbnail = io.BytesIO()
        image.resize((16, 12)).save(thumbnail, "JPEG")
        kind, more = "JPEG", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0" + thumbnail.getvalue()}
    image.save(path, kind, **more)
    truncate(path)


@pytest.mark.parametrize("kind", ["JPEG", "thumbnail", "PNG", "BMP", "TIFF", "WEBP", "PPM"])
def test_a_truncated_image_is_found_among_more_than_are_decoded(tmp_path, kind):
    def look_at_all():
        findings = Findings("a")
        look_images.look_at_images(records, findings)
        return [str(finding) for finding in findings.of("fault")]

    files = [tmp_path / f"{number}.jpg" for number in range(40)]
    for number, file in enumerate(files):
        own_data.draw(file, number)
    records = [{"file_name": str(file)} for file in files]
    assert look_at_all() == []
    order = list(range(40))
    random.Random(0).shuffle(order)
    last = order[-1]  # not among the 32 that are decoded in any case
    write_truncated(files[last], kind)
    (found,) = look_at_all()
    assert found.startswith(f"1 x image that cannot be read: {last}.jpg (")


def test_beyond_the_budget_a_part_of_the_images_is_looked_at(coco, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(look_images, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    findings = Findings("a")
    look_images.look_at_images(DatasetCatalog.get("a"), findings, seconds=2.5)
    assert str(*findings.of("warning")) == "1 x part of the images only was looked at: 2 of 4 in 2.5 s"


# ---- label images ----------------------------------------------------------------------------------------


@pytest.fixture
def semantic(tmp_path):
    """Registers "a" and "b" with the values that their label images hold; returns the warnings of the look."""

    def call(train=(0, 1, 2, 3), test=(0, 1, 2, 3), mode="L", classes="none,bird,fruit,vehicle"):
        for name, values, of in (("a", train, "L"), ("b", test, mode)):
            own_datasets.register_semantic(name, *own_data.semantic(tmp_path, name, values, mode=of), classes)
        return warnings(SEMANTIC)

    return call


BINARY = {"classes": "none,thing", "train": (0, 1)}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"train": (0, 255), "classes": "none,thing"},
            "'a' .*less than two classes, so that nothing is learned: .*hold 0, 255; 255 counts as no class "
            ".*masks of 0 and 255 need 1 in place of 255",
        ),
        (BINARY | {"test": (0, 255)}, "'b' cannot be tested on: .*nothing is measured"),
        (BINARY | {"test": (255,)}, "'b' cannot be tested on: .*hold 255"),
        ({"test": (0, 7)}, "'b' .*4 x label that is no class .0 to 3, or 255 for none.: 7 in "),
        ({"train": (0, 4)}, "'a' .*4 x label that is no class .*: 4 in "),
        ({"mode": "RGB"}, "'b' .*label image that cannot be read: .*mode RGB"),
    ],
)
def test_labels_that_cannot_be_learned_or_measured_are_refused(semantic, how, message):
    with pytest.raises(ValueError, match=message):
        semantic(**how)


def test_classes_without_a_pixel_are_named(semantic):
    assert semantic(train=(0, 1, 3), test=(0, 1, 2, 255)) == [
        "a: 1 x class without a pixel, which is never learned: fruit",
        "b: 1 x class without a pixel, which is left out of the mean: vehicle",
    ]


def test_a_label_image_of_another_size_is_refused(semantic, tmp_path):
    semantic()
    Image.new("L", (20, 20)).save(tmp_path / "b/labels/1.png")
    with pytest.raises(ValueError, match="'b' .*1.png has 20 x 20 pixels, its image 64 x 48"):
        warnings(SEMANTIC)


def test_beyond_the_budget_nothing_is_said_of_classes(semantic, monkeypatch):
    semantic()
    clock = iter(range(1000))
    monkeypatch.setattr(look_semantic, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    findings = Findings("a")
    args = DatasetCatalog.get("a"), MetadataCatalog.get("a"), True, findings
    look_semantic.look_at_labels(*args, seconds=2.5)
    assert str(*findings.of("warning")) == "1 x part of the label images only was looked at: 2 of 4 in 2.5 s"


# ---- cache, and the tool ---------------------------------------------------------------------------------


def test_what_was_found_is_kept_until_a_file_changes(coco, tmp_path, monkeypatch):
    own_data.edit(coco[0], of_annotations(lambda a: a.update(bbox=[5, 5, 0, 4])))
    first = warnings(BOXES)
    assert "box of zero size" in first[0]
    with monkeypatch.context() as patch:
        patch.setattr(look, "_look", None)  # would fail
        assert warnings(BOXES) == first
    truncate(tmp_path / "images/train2.jpg")
    with pytest.raises(ValueError, match="train2.jpg"):
        warnings(BOXES)
    with pytest.raises(ValueError, match="train2.jpg"):  # and from the cache
        warnings(BOXES)
    own_data.edit(coco[0], of_annotations(crowd))
    with pytest.raises(ValueError, match="all 8 objects are iscrowd"):
        warnings(BOXES)


def test_a_broken_cache_is_none(coco, tmp_path):
    look.look_at_set("a", Use(), Files())
    (kept,) = (tmp_path / "cache/looked_at").iterdir()
    kept.write_text("{")
    assert look.look_at_set("a", Use(), Files()).status == "complete"
    kept.unlink()
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert look.look_at_set("a", Use(), Files()).status == "complete"


def check(capsys, *words):
    with pytest.raises(SystemExit) as end:
        check_main([*words])
    return end.value.code, capsys.readouterr().out


def test_the_tool_finds_for_a_recipe_what_the_run_finds(coco, tmp_path, capsys):
    own_data.edit(coco[0], of_annotations(to_run_lengths))
    DatasetCatalog.clear(), MetadataCatalog.data.clear()
    words = [
        w
        for name, file in zip("ab", coco, strict=True)
        for w in ("--coco", name, file, str(tmp_path / "images"))
    ]
    code, text = check(capsys, *words)
    assert code == 0 and "run-length mask; to train on it give INPUT.MASK_FORMAT bitmask: 8 objects" in text
    run = ["--", "DATASETS.TRAIN", "('a',)", "DATASETS.TEST", "('b',)"]
    code, text = check(capsys, "--config-file", MASKS, *words, *run)
    assert code == 1 and "run-length or bit mask where INPUT.MASK_FORMAT is polygon" in text
    code, _ = check(capsys, "--config-file", MASKS, *words, *run, "INPUT.MASK_FORMAT", "bitmask")
    assert code == 0


def test_the_run_and_its_dry_run_stop_before_anything_is_written(coco, tmp_path):
    own_data.edit(coco[0], of_annotations(crowd))
    for flags in ([], ["--dry-run"]):
        words = ["--config-file", BOXES, "--num-gpus", "0", "--init", "random", *flags]
        words += ["DATASETS.TRAIN", "('a',)", "DATASETS.TEST", "('b',)", "OUTPUT_DIR", str(tmp_path / "out")]
        with pytest.raises(ValueError, match="iscrowd"):
            command.run(command.make_parser().parse_args(words))
    assert not os.path.exists(tmp_path / "out")


def test_a_worker_can_hand_on_an_unreadable_image():
    assert str(UnreadableImage("message")) == "message"
    assert (
        json.dumps(str(UnreadableImage("a.jpg", "empty file"))) == "\"cannot read image 'a.jpg': empty file\""
    )


def test_a_class_of_difficult_objects_alone_is_named(tmp_path):
    """The metric leaves such objects out."""
    root = own_data.voc(tmp_path, "train")
    own_datasets.register_voc("v", root, "train")
    for path in sorted((tmp_path / "Annotations").iterdir()):
        text = path.read_text()
        for entry in text.split("<object>")[1:]:
            if "<name>bird<" in entry:
                text = text.replace(entry, entry.replace("<difficult>0<", "<difficult>1<"))
        path.write_text(text)
    (found,) = look.look_at_set("v", Use(), Files()).of("warning")
    assert str(found) == "1 x class whose objects are all difficult, which the metric leaves out: bird"


@pytest.mark.parametrize(
    ("pixels", "box", "side", "told"),
    [
        ((640, 480), 100, 64, True),  # a toy recipe on photographs: 13 px
        ((640, 480), 100, 480, False),
        ((640, 480), 400, 64, False),  # objects that are large all the same
        ((96, 96), 20, 64, False),
        ((640, 480), 100, 0, False),  # their own size
    ],
)
def test_images_shown_much_smaller_than_they_are_are_told(pixels, box, side, told):
    annotation = {"bbox": [1, 1, box, box], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
    records = [{"file_name": "a", "width": pixels[0], "height": pixels[1], "annotations": [annotation] * 3}]
    findings = Findings("a")
    use = Use(True, "", side=side)
    look_records.look_at_records(records, SimpleNamespace(get=lambda name: ["x"]), use, findings)
    assert [f"{found}" for found in findings.of("warning")] == (
        [
            "1 x images that are shown much smaller than they are: 480 px at 64 px (INPUT.MIN_SIZE_TEST), where "
            "the median box is 13 px"
        ]
        if told
        else []
    )
    assert look_records.use_of(config(BOXES), True).side == get_config(BOXES).INPUT.MIN_SIZE_TEST > 0
