"""Data sets of the user's own from the command line and from YAML, and how their classes become the model's."""

import json
import multiprocessing
import shutil

import numpy as np
import own_data
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_pascal_voc

from moco_det.config import load_yaml
from moco_det.data.datasets import own as own_datasets
from moco_det.data.datasets.coco_file import read_categories
from moco_det.data.datasets.voc_files import load_voc, read_xml
from moco_det.finetune import command
from moco_det.model_zoo import get_config_file

SMALL = (
    *("INPUT.MIN_SIZE_TRAIN", "(48,)", "INPUT.MIN_SIZE_TEST", "48", "SOLVER.IMS_PER_BATCH", "2", "SEED", "1"),
    *(
        "SOLVER.STEPS",
        "()",
        "SOLVER.MAX_ITER",
        "2",
        "TEST.EVAL_PERIOD",
        "0",
        "TEST.PRECISE_BN.ENABLED",
        "False",
    ),
)
BOXES, MASKS = "toy/faster_rcnn_R_18_FPN", "toy/mask_rcnn_R_18_FPN"


@pytest.fixture(autouse=True)
def catalogs(monkeypatch):
    """What a test registers is gone after it."""
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", dict(catalog.data))
    monkeypatch.setattr(own_datasets, "_registered", {})
    monkeypatch.setattr(own_datasets, "_ran", set())


@pytest.fixture
def train(tmp_path):
    """Runs tools/train_net.py's function on data sets of the names "a" and "b"; returns OUTPUT_DIR."""

    def call(recipe, *flags, keys=(), sets=True):
        output = tmp_path / "out"
        named = ("DATASETS.TRAIN", "('a',)", "DATASETS.TEST", "('b',)") if sets else ()
        words = [
            "--config-file",
            recipe,
            "--num-gpus",
            "0",
            "--init",
            "random",
            *flags,
            *SMALL,
            *named,
            *keys,
        ]
        command.run(command.make_parser().parse_args([*words, "OUTPUT_DIR", str(output)]))
        return output

    return call


@pytest.fixture
def coco(tmp_path):
    """The options of a training and a test set in COCO's format, and their label files."""
    files = [own_data.coco(tmp_path, split, start=start) for split, start in (("train", 1), ("val", 50))]
    flags = [word for name, places in zip("ab", files, strict=True) for word in ("--coco", name, *places)]
    return flags, files[0][0], files[1][0]


def metrics(folder):
    return json.loads((folder / "run.json").read_text())["metrics"]


@pytest.mark.parametrize(("recipe", "expected"), [(BOXES, {"bbox"}), (MASKS, {"bbox", "segm"})])
def test_a_set_in_cocos_format_trains_from_the_command_line(train, coco, recipe, expected):
    folder = train(recipe, *coco[0])
    assert {name.split("/")[0] for name in metrics(folder) if "/" in name} == expected
    assert load_yaml(folder / "config.yaml")["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] == 3


def test_a_set_in_vocs_layout_trains_from_the_command_line(train, tmp_path):
    own_data.voc(tmp_path / "voc", "val", count=2)
    root = own_data.voc(tmp_path / "voc", "train")
    folder = train(BOXES, "--voc", "a", root, "train", "--voc", "b", root, "val")
    assert "bbox/AP50" in metrics(folder)


def test_semantic_masks_train_from_the_command_line(train, tmp_path):
    flags = []
    for name, split in (("a", "train"), ("b", "val")):
        flags += ["--semantic", name, *own_data.semantic(tmp_path, split), "background,bird,fruit,vehicle"]
    folder = train("toy/semantic_fpn_R_18", *flags)
    assert load_yaml(folder / "config.yaml")["MODEL"]["SEM_SEG_HEAD"]["NUM_CLASSES"] == 4
    assert metrics(folder)["sem_seg/mIoU"] is not None


def test_keypoints_train_from_the_command_line(train, coco):
    flags, *files = coco
    points = ["nose", "left_wing", "right_wing"]

    def add_points(content):
        for category in content["categories"]:
            category["keypoints"] = points
        for annotation in content["annotations"]:
            x, y, w, h = annotation["bbox"]
            annotation |= {
                "keypoints": [x + 1, y + 1, 2, x + 5, y + 5, 2, x + w - 2, y + 5, 2],
                "num_keypoints": 3,
            }

    for file in files:
        own_data.edit(file, add_points)
    sigmas = ("TEST.KEYPOINT_OKS_SIGMAS", "(0.05, 0.05, 0.05)")
    folder = train("toy/keypoint_rcnn_R_18_FPN", *flags, keys=sigmas)
    assert "keypoints/AP" in metrics(folder)
    assert load_yaml(folder / "config.yaml")["MODEL"]["ROI_KEYPOINT_HEAD"]["NUM_KEYPOINTS"] == 3
    assert MetadataCatalog.get("a").keypoint_flip_map == [("left_wing", "right_wing")]


def test_the_same_rows_in_yaml(train, coco, tmp_path):
    _, train_file, val_file = coco
    images = str(tmp_path / "images")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"_BASE_: {get_config_file(BOXES)}\n"
        f"DATASETS:\n  TRAIN: [a]\n  TEST: [b]\n  COCO: [[a, {train_file}, {images}], [b, {val_file}, {images}]]\n"
    )
    folder = train(str(recipe), sets=False)
    assert load_yaml(folder / "config.yaml")["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] == 3


def test_a_file_of_registrations(train, coco, tmp_path):
    _, train_file, val_file = coco
    code = tmp_path / "mine.py"
    code.write_text(
        "from detectron2.data.datasets import register_coco_instances as register\n"
        f"register('a', {{}}, {train_file!r}, {str(tmp_path / 'images')!r})\n"
        f"register('b', {{}}, {val_file!r}, {str(tmp_path / 'images')!r})\n"
    )
    assert "bbox/AP" in metrics(train(BOXES, "--register", str(code)))
    code.write_text("x = 1\nnothing\n")
    own_datasets._ran.clear()
    with pytest.raises(
        ValueError, match=r"--register .*mine.py: NameError: .*'nothing'.*\(mine.py, line 2\)"
    ):
        train(BOXES, "--register", str(code))


def test_registrations_of_detectron2_need_no_attribute_of_ours(train, tmp_path):
    """Its documentation shows no evaluator_type for VOC."""
    own_data.voc(tmp_path / "voc", "val", count=2)
    root = own_data.voc(tmp_path / "voc", "train")
    for name, split in (("a", "train"), ("b", "val")):
        register_pascal_voc(name, root, split, 2023, own_data.CLASSES)
    assert "bbox/AP50" in metrics(train(BOXES))


def test_a_function_of_records_is_enough(train, coco, tmp_path):
    _, *files = coco
    for name, file in zip("ab", files, strict=True):
        records = load_coco_json(file, str(tmp_path / "images"), name + "_read")
        DatasetCatalog.register(name, lambda records=records: records)
        MetadataCatalog.get(name).thing_classes = list(own_data.CLASSES)
    assert "bbox/AP" in metrics(train(BOXES, keys=("DATALOADER.NUM_WORKERS", "0")))


# ---- classes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [1, 2, 8])
def test_another_number_of_classes_is_refused_with_both_numbers_and_the_names(train, coco, given):
    with pytest.raises(
        ValueError, match=f"NUM_CLASSES is {given}, but data set 'a' has 3 .*bird, fruit, vehicle"
    ):
        train(BOXES, *coco[0], keys=("MODEL.ROI_HEADS.NUM_CLASSES", str(given)))


def test_a_number_beside_the_names_of_the_sets_counts_as_given(train, coco, tmp_path, capsys):
    recipe = tmp_path / "mine.yaml"
    sets = "DATASETS: {TRAIN: [a], TEST: [b]}\n"
    base = f"_BASE_: {get_config_file(BOXES)}\n"
    recipe.write_text(base + sets + "MODEL: {ROI_HEADS: {NUM_CLASSES: 7}}\n")
    with pytest.raises(ValueError, match="NUM_CLASSES is 7, but"):
        train(str(recipe), *coco[0], sets=False)
    low = tmp_path / "low.yaml"
    low.write_text(base + "MODEL: {ROI_HEADS: {NUM_CLASSES: 7}}\n")
    recipe.write_text("_BASE_: low.yaml\n" + sets)
    train(str(recipe), "--dry-run", *coco[0], sets=False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "MODEL.ROI_HEADS.NUM_CLASSES 3, as data set 'a' has them: bird, fruit, vehicle" in shown


def swap(content):
    one, other = content["categories"][:2]
    one["name"], other["name"] = other["name"], one["name"]


def super_category(content):
    content["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})


def without_last(content):
    content["categories"].pop()
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] < 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap, "'a' .3: bird, fruit, vehicle. and of 'b' .3: fruit, bird, vehicle.*in another order"),
        (super_category, "'b' .4: things, bird, fruit, vehicle. differ: 'a' lacks things"),
        (without_last, "differ: 'b' lacks vehicle.*same list in the same order"),
    ],
)
def test_sets_that_do_not_agree_are_refused_with_both_lists(train, coco, change, message):
    own_data.edit(coco[2], change)
    with pytest.raises(ValueError, match=message):
        train(BOXES, *coco[0])


def test_ids_that_are_words_work(train, coco):
    def to_words(content):
        for category in content["categories"]:
            category["id"] = f"c{category['id']}"
        for annotation in content["annotations"]:
            annotation["category_id"] = f"c{annotation['category_id']}"

    for file in coco[1:]:
        own_data.edit(file, to_words)
    assert "bbox/AP" in metrics(train(BOXES, *coco[0]))


# ---- options -------------------------------------------------------------------------------------------


def test_a_set_that_the_run_does_not_use_is_refused(train, coco):
    flags = [*coco[0], "--coco", "c", *coco[0][-2:]]
    with pytest.raises(ValueError, match="--coco c: .* a, b; .*DATASETS.TRAIN"):
        train(BOXES, *flags)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--coco", "a", "none.json", "."],
            "--coco a: 'none.json' does not exist .*label file in COCO's format",
        ),
        (["--coco", "coco_2017_val", "{file}", "."], "there is a data set of this name already"),
        (["--coco", "a", "{text}", "."], "--coco a: .*is not JSON"),
        (["--voc", "a", ".", "train"], "ImageSets/Main/train.txt' does not exist.*one name a line"),
        (["--semantic", "a", ".", ".", "x,x"], "names of the classes are .*each once"),
        (["--semantic", "a", ".", ".", "no.txt"], "'no.txt' does not exist.*names of classes"),
        (["--register", "no_such_module"], "--register no_such_module: ModuleNotFoundError"),
    ],
)
def test_what_cannot_be_registered_is_said_with_its_option(train, coco, tmp_path, words, message):
    (tmp_path / "text").write_text("no json")
    words = [word.format(file=coco[1], text=tmp_path / "text") for word in words]
    with pytest.raises(ValueError, match=message):
        train(BOXES, *words)


def test_categories_are_found_wherever_they_stand(tmp_path):
    file = tmp_path / "x.json"
    categories = [{"id": 7, "name": "b"}, {"id": 2, "name": "a"}]
    for content in (
        {"categories": categories, "images": []},
        {"images": [{"categories": [{"id": 1, "name": "not these"}]}], "categories": categories},
        {"images": [], "annotations": [], "categories": categories},
    ):
        file.write_text(json.dumps(content))
        assert [c["name"] for c in read_categories(str(file))] == ["a", "b"]
    file.write_text("{}")
    with pytest.raises(ValueError, match="no list of categories"):
        read_categories(str(file))


def test_a_label_image_for_each_image(tmp_path):
    images, labels = own_data.semantic(tmp_path, "train")
    (tmp_path / "train/labels/2.png").rename(tmp_path / "train/labels/2.jpg")
    with pytest.raises(ValueError, match="1 of 4 images .*label image.* '2'.*png"):
        own_datasets.load_semantic(images, labels)
    for name in ("2.png", "1.bmp"):  # which of two is meant cannot be known
        shutil.copy(tmp_path / "train/labels/1.png", tmp_path / "train/labels" / name)
    with pytest.raises(ValueError, match="1.bmp' .*1.png' .*extension"):
        own_datasets.load_semantic(images, labels)


# ---- VOC as users write it -----------------------------------------------------------------------------


def test_own_reader_of_voc_equals_detectron2s(tmp_path):
    from detectron2.data.datasets.pascal_voc import load_voc_instances

    root = own_data.voc(tmp_path, "train")
    assert load_voc(root, "train", own_data.CLASSES) == load_voc_instances(root, "train", own_data.CLASSES)


def test_xml_without_what_nothing_uses_and_with_fractions(train, tmp_path):
    root = tmp_path / "voc"
    for split in ("train", "val"):
        own_data.voc(root, split, fields=(), scale=1.5)
    assert read_xml(str(root / "Annotations/val0.xml"))[1][0]["box"] == [5.5, 6.5, 25.5, 21.5]
    folder = train(BOXES, "--voc", "a", str(root), "train", "--voc", "b", str(root), "val")
    assert "bbox/AP50" in metrics(folder)


def perfect(name):
    """What a detector without fault finds."""
    import torch
    from detectron2.structures import Boxes, Instances

    for record in DatasetCatalog.get(name):
        found = Instances((record["height"], record["width"]))
        found.pred_boxes = Boxes(
            torch.tensor([a["bbox"] for a in record["annotations"]], dtype=torch.float32)
        )
        found.pred_classes = torch.tensor([a["category_id"] for a in record["annotations"]])
        found.scores = torch.full((len(found),), 0.5)
        yield [record], [{"instances": found}]


@pytest.mark.parametrize("year", [2007, 2012])
def test_the_evaluator_of_voc_equals_detectron2s(tmp_path, year):
    from detectron2.evaluation import PascalVOCDetectionEvaluator

    from moco_det.finetune.voc_evaluator import VocEvaluator

    register_pascal_voc("v", own_data.voc(tmp_path, "val"), "val", year, own_data.CLASSES)
    results = []
    for evaluator in (VocEvaluator("v"), PascalVOCDetectionEvaluator("v")):
        evaluator.reset()
        for number, (inputs, outputs) in enumerate(perfect("v")):
            if number:  # one image without detections
                outputs[0]["instances"].pred_boxes.tensor[0] += 2 * number
                evaluator.process(inputs, outputs)
        results.append(evaluator.evaluate()["bbox"])
    assert results[0] == results[1] and 0 < results[0]["AP"] < 100


def test_the_evaluator_of_voc_takes_any_names_and_fractions(tmp_path):
    from moco_det.finetune.voc_evaluator import VocEvaluator

    root = own_data.voc(tmp_path, "val", fields=(), scale=1.25)
    for path in sorted((tmp_path / "Annotations").iterdir()):
        path.write_text(path.read_text().replace("bird", "bird/of prey"))
        path.rename(path.with_name(path.name.replace("val", "val ")))
    for path in sorted((tmp_path / "JPEGImages").iterdir()):
        path.rename(path.with_name(path.name.replace("val", "val ")))
    (tmp_path / "ImageSets/Main/val.txt").write_text("val 0\nval 1\n\nval 2\nval 3\n")
    own_datasets.register_voc("v", root, "val")
    assert MetadataCatalog.get("v").thing_classes == ["bird/of prey", "fruit", "vehicle"]
    evaluator = VocEvaluator("v")
    evaluator.reset()
    for inputs, outputs in perfect("v"):
        evaluator.process(inputs, outputs)
    assert np.isclose(evaluator.evaluate()["bbox"]["AP50"], 100)

    # A process that is forked meanwhile, as loaders' workers are, leaves the copy of the labels when it ends.
    worker = multiprocessing.get_context("fork").Process(target=str)
    worker.start()
    worker.join()
    assert np.isclose(evaluator.evaluate()["bbox"]["AP50"], 100)
