"""The commands of docs/OWN_DATA.md's "Labels", as they stand there, for one iteration on small data."""

import json
import os
import re
import shlex

import own_data
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from moco_det.data.datasets import own as own_datasets
from moco_det.data.split import main as split_labels
from moco_det.finetune import check_datasets, command
from moco_det.pretrain.command import argument_parser
from moco_det.testing.core import REPOSITORY

TEXT = (REPOSITORY / "docs/OWN_DATA.md").read_text().split("\n## Labels\n")[1].split("\n## ")[0]
_ALL = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
SPLITS = [words for words in _ALL if words[0] == "tools/split_labels.py"]
COMMANDS = [words for words in _ALL if words not in SPLITS]
SMALLER = (
    *(
        "SOLVER.IMS_PER_BATCH",
        "2",
        "SOLVER.MAX_ITER",
        "1",
        "SOLVER.STEPS",
        "()",
        "TEST.PRECISE_BN.ENABLED",
        "False",
    ),
    *(
        "INPUT.MIN_SIZE_TRAIN",
        "(48,)",
        "INPUT.MIN_SIZE_TEST",
        "48",
        "INPUT.CROP.SIZE",
        "(64,64)",
        "SEED",
        "1",
    ),
    *(
        "MODEL.RPN.PRE_NMS_TOPK_TEST",
        "50",
        "MODEL.RPN.POST_NMS_TOPK_TEST",
        "5",
        "DATALOADER.NUM_WORKERS",
        "0",
    ),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8", "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "(8,)"),
)
METRICS = {
    "my_masks": "segm/AP",
    "my_boxes": "bbox/AP50",
    "my_segmentation": "sem_seg/mIoU",
    "my_keypoints": "keypoints/AP",
    "my_registered": "segm/AP",
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder with each file that the commands name."""
    monkeypatch.chdir(tmp_path)
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", dict(catalog.data))
    monkeypatch.setattr(own_datasets, "_registered", {})
    monkeypatch.setattr(own_datasets, "_ran", set())
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    (tmp_path / "labels").mkdir()
    lines = ["from detectron2.data.datasets import register_coco_instances"]
    for split, start in (("train", 1), ("test", 50)):
        file, _ = own_data.coco(tmp_path, split, start=start)
        os.rename(file, tmp_path / f"labels/{split}.json")
        content = json.loads((tmp_path / f"labels/{split}.json").read_text())
        for category in content["categories"]:
            category["keypoints"] = ["nose", "left_wing", "right_wing"]
        for annotation in content["annotations"]:
            x, y, _, _ = annotation["bbox"]
            annotation["keypoints"] = [x + 2, y + 2, 2, x + 5, y + 5, 2, x + 9, y + 5, 1]
        (tmp_path / f"labels/points_{split}.json").write_text(json.dumps(content))
        own_data.voc(tmp_path / "voc", split)
        own_data.semantic(tmp_path / "masks", split)
        lines.append(f"register_coco_instances('my_{split}', {{}}, 'labels/{split}.json', 'images')")
    (tmp_path / "my_datasets.py").write_text("\n".join(lines))
    return tmp_path


def test_there_is_a_command_for_each_format():
    assert [os.path.basename(words[-1]) for words in COMMANDS] == [*METRICS, "leaks.txt", "pretrain"]


@pytest.mark.parametrize("number", range(len(METRICS)), ids=METRICS)
def test_a_format(folder, number):
    words = ["random" if word == "output/backbone.pkl" else word for word in COMMANDS[number][1:]]
    command.run(command.make_parser().parse_args([*words[:4], "--num-gpus", "0", *words[4:], *SMALLER]))
    output = COMMANDS[number][-1]
    metrics = json.loads((folder / output / "run.json").read_text())["metrics"]
    assert METRICS[os.path.basename(output)] in metrics


@pytest.mark.parametrize("words", SPLITS, ids=["by image", "by clip"])
def test_one_file_becomes_two(folder, tmp_path, words):
    (tmp_path / "labels").rename(tmp_path / "before")
    content = json.loads((tmp_path / "before/train.json").read_text())
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(content["images"]):
        image["file_name"] = f"images/clip{number // 2}_{number:04}.jpg"  # as a labeling tool names it
        (tmp_path / f"photos/clip{number // 2}_{number:04}.jpg").write_bytes(b"")
    (tmp_path / "result.json").write_text(json.dumps(content))
    split_labels(words[1:])
    parts = [
        json.loads((tmp_path / f"labels/{part}.json").read_text())["images"] for part in ("train", "test")
    ]
    assert sum(map(len, parts)) == len(content["images"]) and all(parts)
    clips = [{image["file_name"].split("_")[0] for image in part} for part in parts]
    assert "--group" not in words or not clips[0] & clips[1]


def test_leaks(folder):
    os.rename(folder / "images", folder / "DIR")
    (folder / "images").symlink_to("DIR")
    check, pretrain = COMMANDS[-2:]
    with pytest.raises(SystemExit) as end:
        check_datasets.main(check[1:])
    leaks = (folder / "leaks.txt").read_text().split()
    assert end.value.code == 1 and len(leaks) == 4 and all("/DIR/test" in path for path in leaks)
    assert argument_parser().parse_args(pretrain[1:]).exclude == "leaks.txt"
