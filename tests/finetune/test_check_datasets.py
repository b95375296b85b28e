"""tools/check_datasets.py: a whole toy world passes; each fault that is planted in one is reported by its name."""

import json
import os
import shutil

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import builtin, register_coco_instances
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from PIL import Image

from moco_det.data.datasets.lvis import register_lvis_datasets
from moco_det.data.datasets.segmentation import register_voc_sem_seg
from moco_det.data.datasets.toy import TOY_NAMES, register_toy_datasets
from moco_det.finetune.check_datasets import main
from moco_det.finetune.check_findings import Files
from moco_det.model_zoo.tasks import TASKS

SEGMENTATION = tuple(
    f"toy_{kind}_{split}"
    for kind in ("voc_sem_seg", "cityscapes_sem_seg", "cityscapes_instance")
    for split in ("train", "val")
)
CITYSCAPES_SCRIPTS = "python -m cityscapesscripts.preparation."
GT_FINE = "cityscapes/gtFine/val/*/*"
VOC, COCO, LVIS = "toy_voc_2007_test", "toy_coco_val", "toy_lvis_val"


@pytest.fixture
def check(capsys, tmp_path, monkeypatch):
    """Runs the tool; returns its exit code, what it printed, and what it wrote for scripts."""
    monkeypatch.setenv("MOCO_DET_CACHE", str(tmp_path / "cache"))

    def call(*words):
        file = tmp_path / "report.json"
        with pytest.raises(SystemExit) as end:
            main([*words, "--json", str(file)])
        return end.value.code, capsys.readouterr().out, json.loads(file.read_text())["datasets"]

    return call


@pytest.fixture
def broken(toyworld, tmp_path, monkeypatch):
    """A copy of the toy world to plant faults in; images, which no test changes, are links."""

    def copy(source, target):
        (os.link if source.endswith((".jpg", ".png")) else shutil.copy)(source, target)

    unused = shutil.ignore_patterns("unlabeled", "classes")
    shutil.copytree(toyworld / "toyworld", tmp_path / "copy" / "toyworld", ignore=unused, copy_function=copy)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "copy"))
    register_toy_datasets()
    yield tmp_path / "copy" / "toyworld"
    monkeypatch.undo()
    register_toy_datasets()


@pytest.fixture
def official(tmp_path, monkeypatch):
    """An empty folder in which the official data sets are looked for."""
    root = tmp_path / "official"
    root.mkdir()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", {})
    for register in (builtin.register_all_coco, builtin.register_all_cityscapes):
        register(str(root))
    builtin.register_all_pascal_voc(str(root))
    register_lvis_datasets(str(root))
    for split in ("train_aug", "val"):
        register_voc_sem_seg(f"voc_2012_sem_seg_{split}", str(root / "VOC2012"), split, ["aeroplane"])
    return root


def write(root, *paths, text="", size=(8, 8)):
    """Files with a text, and images."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith((".jpg", ".png")):
            Image.new("RGB" if path.endswith(".jpg") else "L", size).save(root / path)
        else:
            (root / path).write_text(text)


def test_a_whole_toy_world_is_complete(check):
    code, text, report = check("--datasets", *TOY_NAMES, *SEGMENTATION)
    assert code == 0, text
    assert {entry["state"] for entry in report.values()} == {"complete"} and len(report) == 14
    assert {entry["images"] for entry in report.values()} == {12, 13}
    levels = {finding["level"] for entry in report.values() for finding in entry["findings"]}
    assert levels <= {"warning"} and "To do" not in text


def found(report, name):
    return {f["kind"]: f for f in report[name]["findings"]}


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def set_first(key, value):
    def change(content):
        content["annotations"][0][key] = value

    return change


def reorder(content):
    one, other = content["categories"][:2]
    one["name"], other["name"] = other["name"], one["name"]


def remove_field(content):
    del content["annotations"][0]["bbox"]


# Kind, level, what happens to the file, and the first example (of toy_coco_val's annotation 1, image 1).
JSON_FAULTS = [
    ("box of zero size", "warning", set_first("bbox", [5, 5, 0, 4]), "annotation 1 of image 1"),
    ("box whose corners are swapped", "fault", set_first("bbox", [9, 9, 4, -1]), "annotation 1 of image 1"),
    ("box outside its image", "warning", set_first("bbox", [5, 5, 4, 65]), "annotation 1 of image 1"),
    ("box outside its image", "warning", set_first("bbox", [-2, 5, 4, 5]), "annotation 1 of image 1"),
    ("empty polygon", "warning", set_first("segmentation", []), "annotation 1 of image 1"),
    ("empty polygon", "warning", set_first("segmentation", [[1, 2, 3, 4]]), "annotation 1 of image 1"),
    (
        "run-length mask of another size than its image",
        "fault",
        set_first("segmentation", {"size": [32, 64], "counts": [2048]}),
        "annotation 1 of image 1",
    ),
    ("unknown category id", "fault", set_first("category_id", 3), "3 (annotation 1 of image 1)"),
    ("annotation of an unknown image", "fault", set_first("image_id", 77), "annotation 1 of image 77"),
    ("annotation id that appears twice", "fault", set_first("id", 2), "annotation 2 of image"),
    ("malformed annotation", "fault", remove_field, "annotation 1 (no field 'bbox')"),
    ("malformed annotation", "fault", set_first("bbox", ["a", 1, 2, 3]), "annotation 1"),
    ("image id that appears twice", "fault", lambda c: c["images"].append(c["images"][2]), "image 3"),
    ("malformed image record", "fault", lambda c: c["images"][3].update(width="64"), "number 3 ('64' where"),
    ("image of zero size", "fault", lambda c: c["images"][3].update(width=0), "image 4"),
    (
        "malformed image record",
        "fault",
        lambda c: c["images"][4].pop("file_name"),
        "number 4 (no field 'file_",
    ),
    ("category id that appears twice", "fault", lambda c: c["categories"][1].update(id=1), "category 1"),
    (
        "class name that is not in the class list",
        "fault",
        lambda c: c["categories"][0].update(name="x"),
        "'x'",
    ),
    ("class that the label file lacks", "fault", lambda c: c["categories"].pop(), "'"),
    ("class list in another order", "fault", reorder, "class 0 is "),
    ("label file without annotations", "warning", lambda c: c.pop("annotations"), "instances_val2017.json"),
    ("label file without a list of images", "fault", lambda c: c.pop("images"), "instances_val2017.json"),
    (
        "label file without a list of annotations",
        "fault",
        lambda c: c.update(annotations={}),
        "instances_val",
    ),
]


@pytest.mark.parametrize(("kind", "level", "change", "example"), JSON_FAULTS)
def test_faults_in_coco_labels(broken, check, kind, level, change, example):
    edit_json(broken / "coco" / "annotations" / "instances_val2017.json", change)
    code, text, report = check("--datasets", COCO)
    (finding,) = [f for name, f in found(report, COCO).items() if name.startswith(kind)]
    assert finding["level"] == level and finding["examples"][0].startswith(example)
    assert finding["kind"] in text and finding["examples"][0] in text
    assert (code, report[COCO]["state"]) == ((1, "faulty") if level == "fault" else (0, "complete"))


def test_boxes_alone_may_have_empty_masks(broken, check):
    """Labeling tools write them so; where other objects have masks they are told (JSON_FAULTS)."""

    def change(content):
        for annotation in content["annotations"]:
            annotation["segmentation"] = []

    edit_json(broken / "coco" / "annotations" / "instances_val2017.json", change)
    assert not [
        name for name in found(check("--datasets", COCO)[2], COCO) if name.startswith("empty polygon")
    ]


def test_images_in_another_folder_are_named(broken, check):
    """Names with folders of a labeling tool before them: the message says which folder would do."""

    def change(content):
        for image in content["images"]:
            image["file_name"] = f"images/{image['file_name']}"

    edit_json(broken / "coco" / "annotations" / "instances_val2017.json", change)
    code, text, _ = check("--datasets", COCO)
    assert code == 1 and "coco/val2017': moco-det split --images makes the names fit" in " ".join(
        text.split()
    )


def test_images_without_annotation_are_counted(broken, check):
    def change(content):
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] > 4]

    edit_json(broken / "coco" / "annotations" / "instances_val2017.json", change)
    code, text, report = check("--datasets", COCO)
    assert "warning  4 x image without annotation: image 1, image 2, image 3, …" in text
    assert "complete 12 4 warnings" in " ".join(text.split()) and code == 0
    assert found(report, COCO)["image without annotation"]["count"] == 4


@pytest.mark.parametrize("content", ['{"images": [', "", "[1, 2]", "[" * 100_000, "\xff\xfe"], ids=range(5))
def test_json_that_cannot_be_read_is_one_line(broken, check, content):
    path = broken / "coco" / "annotations" / "instances_val2017.json"
    path.write_bytes(content.encode("latin-1"))
    code, text, report = check("--datasets", COCO, VOC)
    (finding,) = report[COCO]["findings"]
    assert code == 1 and finding["level"] == "fault" and finding["kind"].startswith("label file")
    assert report[COCO]["state"] == "faulty" and report[VOC]["state"] == "complete"
    assert "instances_val2017.json" in text and "Traceback" not in text


def lvis_without(key):
    return lambda content: content["images"][0].pop(key)


@pytest.mark.parametrize(
    ("kind", "change", "example"),
    [
        (
            "malformed image record",
            lvis_without("neg_category_ids"),
            "number 0 (no field 'neg_category_ids')",
        ),
        ("empty polygon", set_first("segmentation", [[1, 1, 5, 1, 5, 5], [1, 1]]), "annotation 1 of"),
        ("malformed annotation", lambda c: c["annotations"][0].pop("segmentation"), "annotation 1 (no field"),
        ("category id that the label file lacks", lambda c: c["categories"].pop(), ""),
        (
            "category id that the label file has",
            lambda c: c["categories"].append({"id": 5000, "name": "x"}),
            "5000",
        ),
    ],
)
def test_faults_in_lvis_labels(broken, check, kind, change, example):
    edit_json(broken / "lvis" / "lvis_v1_val.json", change)
    code, _, report = check("--datasets", LVIS)
    (finding,) = [f for name, f in found(report, LVIS).items() if name.startswith(kind)]
    assert code == 1 and finding["level"] == "fault" and finding["examples"][0].startswith(example)


def test_keypoints_of_another_number(broken, check):
    edit_json(
        broken / "coco" / "annotations" / "person_keypoints_val2017.json", set_first("keypoints", [1, 1, 2])
    )
    code, _, report = check("--datasets", "toy_keypoints_val")
    assert code == 1 and "annotation without 5 keypoints" in found(report, "toy_keypoints_val")


# What is replaced in the first XML file of the test split, and by what.
XML_FAULTS = [
    ("XML file that cannot be read", "fault", "<width>64</width>", ""),
    ("XML file that cannot be read", "fault", "<height>64<", "<height>tall<"),
    ("XML file that cannot be read", "fault", "<difficult>0<", "<difficult>no<"),
    ("XML file that cannot be read", "fault", "<xmin>", "<xmin>nan"),
    ("coordinates with a fraction, which the metric rounds", "warning", "</xmax>", ".5</xmax>"),
    ("XML file that cannot be read", "fault", "</annotation>", ""),
    (
        "XML file that cannot be read",
        "fault",
        "<annotation>",
        "<?xml version='1.0' encoding='x'?><annotation>",
    ),
    ("XML file that cannot be read", "fault", "</bndbox>", "</bndbox><bndbox></bndbox>"),
    ("class name that is not in the class list", "fault", "<name>", "<name>no "),
    ("box outside its image", "warning", "<xmax>", "<xmax>1"),
    ("box whose corners are swapped (of negative size)", "fault", "<xmin>", "<xmin>9"),
]


@pytest.mark.parametrize(("kind", "level", "old", "new"), XML_FAULTS)
def test_faults_in_voc_labels(broken, check, kind, level, old, new):
    path = sorted((broken / "VOC2007" / "Annotations").glob("5*.xml"))[0]
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    code, text, report = check("--datasets", VOC)
    finding = found(report, VOC)[kind]
    assert finding["level"] == level and path.name in finding["examples"][0] and finding["count"] == 1
    assert kind in text and code == (1 if level == "fault" else 0)


def test_faults_in_voc_lists_and_empty_xml(broken, check):
    split = broken / "VOC2007" / "ImageSets" / "Main" / "test.txt"
    names = split.read_text().split()
    split.write_text("\n".join([*names, names[3], "999999"]))
    xml = broken / "VOC2007" / "Annotations" / f"{names[0]}.xml"
    xml.write_text("<annotation><size><width>64</width><height>64</height></size></annotation>")
    code, _, report = check("--datasets", VOC)
    kinds = found(report, VOC)
    assert code == 1 and report[VOC]["images"] == 14 and report[VOC]["state"] == "incomplete"
    assert kinds["name that the split's list holds more than once"]["examples"] == [names[3]]
    assert kinds["image"]["examples"] == ["999999.jpg"] and kinds["XML file"]["examples"] == ["999999.xml"]
    assert kinds["image without annotation"]["examples"] == [f"{names[0]}.xml"]


@pytest.mark.parametrize(
    ("name", "pattern", "kind"),
    [
        (VOC, "VOC2007/JPEGImages/5*.jpg", "image"),
        (VOC, "VOC2007/Annotations/5*.xml", "XML file"),
        (COCO, "coco/val2017/*.jpg", "image"),
        (LVIS, "coco/val2017/*.jpg", "image"),
        ("toy_voc_sem_seg_train", "VOC2012/SegmentationClassAug/*.png", "label image"),
        (
            "toy_cityscapes_sem_seg_val",
            f"{GT_FINE}_labelTrainIds.png",
            "file *_gtFine_labelTrainIds.png",
        ),
        (
            "toy_cityscapes_instance_val",
            f"{GT_FINE}_polygons.json",
            "file *_gtFine_polygons.json",
        ),
    ],
)
def test_a_file_that_is_gone(broken, check, name, pattern, kind):
    paths = sorted(broken.glob(pattern))
    paths[1].unlink()
    code, text, report = check("--datasets", name)
    finding = found(report, name)[kind]
    assert code == 1 and report[name]["state"] == "incomplete"
    assert finding["count"] == 1 and os.path.basename(finding["examples"][0]) == paths[1].name
    maker = "createTrainIdLabelImgs" if "labelTrainIds" in pattern else "tools/make_toyworld.py"
    assert paths[1].name in text and f"- make it with {maker}" in text.replace(CITYSCAPES_SCRIPTS, "")


def test_a_folder_that_is_gone_and_a_world_that_is_gone(broken, check):
    shutil.rmtree(broken / "coco" / "val2017")
    code, text, report = check("--datasets", COCO, VOC)
    assert code == 1 and (report[COCO]["state"], report[VOC]["state"]) == ("incomplete", "complete")
    assert f"{COCO} incomplete toyworld/coco/val2017" in " ".join(text.split())
    shutil.rmtree(broken)
    code, _, report = check("--datasets", *TOY_NAMES, *SEGMENTATION)
    assert code == 1 and {entry["state"] for entry in report.values()} == {"missing"}


def test_a_foreign_file_between_the_images_of_cityscapes(broken, check):
    (broken / "cityscapes" / "leftImg8bit" / "val" / ".DS_Store").touch()
    code, _, report = check("--datasets", "toy_cityscapes_instance_val")
    kinds = found(report, "toy_cityscapes_instance_val")
    assert code == 1 and kinds["file in the images' folders that is no image"]["examples"] == [".DS_Store/"]


def test_nothing_of_the_official_sets_is_there(official, check):
    code, text, report = check("--tasks", "all")
    assert code == 1 and set(report) == {name for task in TASKS for name in (*task.train, *task.test)}
    states = {name: entry["state"] for name, entry in report.items()}
    assert {s for n, s in states.items() if not n.startswith("moco_densepose")} == {"missing"}
    assert text.count("comes with projects/DensePose, whose train_net.py checks it") == 3
    for line in (
        "fetch VOCtrainval_06-Nov-2007.tar from host.robots.ox.ac.uk/pascal/VOC",
        "fetch VOCtest_06-Nov-2007.tar from host.robots.ox.ac.uk/pascal/VOC",
        "fetch VOCtrainval_11-May-2012.tar from host.robots.ox.ac.uk/pascal/VOC",
        "fetch benchmark.tgz (SBD",
        "fetch annotations_trainval2017.zip from cocodataset.org",
        "fetch train2017.zip from cocodataset.org",
        "fetch val2017.zip from cocodataset.org",
        "fetch lvis_v0.5_train.json.zip from www.lvisdataset.org",
        "fetch lvis_v1_val.json.zip from www.lvisdataset.org",
        "fetch leftImg8bit_trainvaltest.zip from www.cityscapes-dataset.com",
        "fetch gtFine_trainvaltest.zip from www.cityscapes-dataset.com",
    ):
        assert text.count(f"- {line}") == 1, line


def test_dense_pose_counts_only_when_it_is_asked_for(check):
    code, text, report = check("--tasks", "coco-densepose", "--datasets", VOC)
    assert code == 1 and report[VOC]["state"] == "complete" and "comes with projects/D" in text


def test_official_voc_with_two_files_each(official, check):
    size = "<size><width>9</width><height>9</height></size>"
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    rest = "<pose>Left</pose><truncated>0</truncated><difficult>0</difficult>"
    xml = f"<annotation>{size}<object><name>cat</name>{rest}{box}</object></annotation>"
    write(official, "VOC2007/ImageSets/Main/trainval.txt", text="000005\n000007\n")
    for name in ("000005", "000007"):
        write(official, f"VOC2007/Annotations/{name}.xml", text=xml)
        write(official, f"VOC2007/JPEGImages/{name}.jpg", size=(9, 9))
    code, text, report = check("--tasks", "voc07-c4")
    assert code == 1 and report["voc_2007_trainval"]["state"] == "complete"  # with a warning:
    kinds = found(report, "voc_2007_trainval")
    assert "2, not 5,011 (host.robots" in kinds["number of images unlike the official one"]["examples"][0]
    assert kinds["class without an instance (in a test set, its AP counts as 0)"]["count"] == 19
    assert report["voc_2007_test"]["state"] == "incomplete" and "VOC2007/ImageSets/Main/test.txt" in text
    assert "- fetch VOCtest_06-Nov-2007.tar" in text and "VOCtrainval" not in text


def test_official_voc_segmentation_without_sbd(official, check):
    write(official, "VOC2012/ImageSets/Segmentation/val.txt", text="2007_000033\n")
    write(official, "VOC2012/JPEGImages/2007_000033.jpg", "VOC2012/SegmentationClass/2007_000033.png")
    with Image.open(official / "VOC2012/SegmentationClass/2007_000033.png") as labels:
        labels.putpixel((0, 0), 1)
        labels.save(official / "VOC2012/SegmentationClass/2007_000033.png")
    code, text, report = check("--tasks", "voc-semantic")
    assert code == 1 and report["voc_2012_sem_seg_val"]["state"] == "complete"
    assert "voc_2012_sem_seg_train_aug incomplete VOC2012/ImageSets/Segmentation/train_aug.txt" in " ".join(
        text.split()
    )
    assert "benchmark.tgz" in text and "voc_aug.py $DETECTRON2_DATASETS" in text and "VOCtrainval" not in text


def coco_file(names, image):
    return json.dumps(
        {
            "images": [image],
            "categories": [{"id": c["id"], "name": c["name"]} for c in COCO_CATEGORIES if c["isthing"]],
            "annotations": [
                {"id": 1, "image_id": image["id"], "category_id": 90, "bbox": [0, 0, 4, 4], "iscrowd": 0}
            ],
        }
    )


def test_official_coco_with_one_image(official, check):
    image = {"id": 139, "file_name": "000000000139.jpg", "width": 8, "height": 8}
    write(official, "coco/annotations/instances_val2017.json", text=coco_file([], image))
    write(official, "coco/val2017/000000000139.jpg")
    code, _, report = check("--datasets", "coco_2017_val")
    kinds = {"number of images unlike the official one", "object without a mask, of use for boxes alone"}
    assert code == 0 and set(found(report, "coco_2017_val")) == kinds
    (official / "coco" / "val2017" / "000000000139.jpg").unlink()
    code, text, report = check("--datasets", "coco_2017_val", "moco_lvis_v1_val")
    assert code == 1 and "missing  1 x image: val2017/000000000139.jpg" in text
    assert "- fetch val2017.zip from cocodataset.org, unpack it in coco (coco_2017_val)" in text
    assert report["moco_lvis_v1_val"]["state"] == "incomplete" and "- fetch lvis_v1_val.json.zip" in text


def test_official_cityscapes_without_derived_labels(official, check):
    stem = "train/aachen/aachen_000000_000019"
    write(official, f"cityscapes/leftImg8bit/{stem}_leftImg8bit.png")
    labels = ("polygons.json", "labelIds.png", "instanceIds.png")
    write(official, *(f"cityscapes/gtFine/{stem}_gtFine_{label}" for label in labels))
    names = [f"cityscapes_fine_{task}_train" for task in ("instance_seg", "sem_seg")]
    code, text, report = check("--datasets", *names)
    assert [report[name]["state"] for name in names] == ["faulty", "incomplete"] and code == 1
    assert "labels that their reader cannot read: JSONDecodeError" in text  # an empty polygons.json
    assert "1 x file *_gtFine_labelTrainIds.png: aachen_000000_000019_gtFine_labelTrainIds.png" in text
    assert "- make it with python -m cityscapesscripts.preparation.createTrainIdLabelImgs" in text
    (official / "cityscapes" / "gtFine" / f"{stem}_gtFine_labelIds.png").unlink()
    assert "- fetch gtFine_trainvaltest.zip" in check("--datasets", *names)[1]
    (official / "cityscapes" / "leftImg8bit" / f"{stem}_leftImg8bit.png").unlink()
    assert "- fetch leftImg8bit_trainvaltest.zip" in check("--datasets", *names)[1]


def test_names_that_cannot_be_checked(check):
    code, text, report = check("--datasets", "toy_coco_vall", "lvis_v1_val", "ade20k_sem_seg_val", VOC)
    states = ["unknown", "unknown", "missing", "complete"]
    assert code == 1 and [entry["state"] for entry in report.values()] == states
    assert "'toy_coco_val'" in text
    assert "take moco_lvis_v1_val" in text


def test_your_own_data_set(tmp_path, check):
    image = {"id": 1, "file_name": "a/b.jpg", "width": 8, "height": 8}
    write(tmp_path, "my.json", text=coco_file([], image))
    register_coco_instances("mine", {}, str(tmp_path / "my.json"), str(tmp_path / "images"))
    try:
        code, text, _ = check("--datasets", "mine")
        assert code == 1 and "images" in text and "- put it there (mine)" in text
        write(tmp_path, "images/a/b.jpg")
        assert check("--datasets", "mine")[0] == 0
    finally:
        DatasetCatalog.remove("mine")
        MetadataCatalog.remove("mine")


def test_a_shared_label_file_is_read_once(tmp_path, check, monkeypatch):
    reads = []
    load = json.load
    monkeypatch.setattr(json, "load", lambda file: reads.append(file.name) or load(file))
    path = MetadataCatalog.get(COCO).json_file
    register_coco_instances("mine_again", {}, path, MetadataCatalog.get(COCO).image_root)
    try:
        assert check("--datasets", COCO, "toy_coco_train", "mine_again", COCO)[0] == 0
    finally:
        DatasetCatalog.remove("mine_again")
        MetadataCatalog.remove("mine_again")
    # And once by the reader of each data set.
    assert reads.count(path) == 1 + 2 and len(reads) == 2 + 3


def test_a_folder_is_listed_once(tmp_path, monkeypatch):
    write(tmp_path, "a.jpg")
    files, listed = Files(), []
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or ["a.jpg"])
    assert files.has(str(tmp_path / "a.jpg")) and not files.has(str(tmp_path / "b.jpg")) and len(listed) == 1


def test_wrong_usage_ends_with_2(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--tasks", "voc-c5"])
    assert end.value.code == 2 and "there is no task 'voc-c5'; known: voc-c4" in capsys.readouterr().err
