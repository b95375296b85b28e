"""The study of the user's own data: wrong input, shares, starts, and the whole command on the toy world."""

import itertools
import json
import pickle
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from detectron2.modeling import build_model
from PIL import Image
from run_examples import make_record

from moco_det.benchmark import command as benchmark
from moco_det.benchmark.own import command as own
from moco_det.benchmark.own import data as own_data
from moco_det.benchmark.own.data import read_data
from moco_det.benchmark.own.plan import COCO_PAIRS, given_keys, make_starts, recipe_digest
from moco_det.benchmark.own.settle import first_study, settle, write_inputs
from moco_det.benchmark.own.tuning import hold_out
from moco_det.config import get_cfg
from moco_det.convert.convert import convert
from moco_det.data.labels import take_labels
from moco_det.finetune.command import main as train
from moco_det.finetune.inits import read_init
from moco_det.report.kept_results import load_results, render
from moco_det.report.runs import find_runs
from moco_det.testing.core import REPOSITORY
from moco_det.toyworld.make import main as make_toyworld
from moco_det_cli.parsers.stages import train_parser
from moco_det_cli.parsers.studies import own_parser


def smooth_image(seed, size=64):
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def write_voc(folder, split, numbers, classes=("bolt", "nut"), boxes=1):
    """A split in VOC's layout: image n holds an object of class n modulo the classes."""
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        smooth_image(number).save(folder / f"JPEGImages/{number:03}.jpg")
        root = ET.Element("annotation")
        ET.SubElement(root, "filename").text = f"{number:03}.jpg"
        size = ET.SubElement(root, "size")
        for name, value in (("width", 64), ("height", 64), ("depth", 3)):
            ET.SubElement(size, name).text = str(value)
        for place in range(boxes):
            entry = ET.SubElement(root, "object")
            ET.SubElement(entry, "name").text = classes[number % len(classes)]
            box = ET.SubElement(entry, "bndbox")
            for name, value in zip(("xmin", "ymin", "xmax", "ymax"), (9, 9, 40 + place, 30), strict=True):
                ET.SubElement(box, name).text = str(value)
        ET.ElementTree(root).write(folder / f"Annotations/{number:03}.xml")
    (folder / f"ImageSets/Main/{split}.txt").write_text("".join(f"{number:03}\n" for number in numbers))
    return folder


@pytest.fixture
def sets(tmp_path):
    """Words that name a training set of 16 and a test set of 4 images."""
    write_voc(tmp_path / "train", "all", range(16))
    write_voc(tmp_path / "test", "all", range(100, 104))
    return ["--voc", "own_a", str(tmp_path / "train"), "all", "--voc", "own_b", str(tmp_path / "test"), "all"]


def ask(words, tmp_path, *more):
    output = ["--output", str(tmp_path / "out"), "--num-gpus", "0", "--dry-run", "--no-trial"]
    own.main([*words, *output, "--inits", "random", "own", "--shares", "100", *more])


def refusal(capsys, words, tmp_path, *more):
    """The one line that a command ends with."""
    with pytest.raises(SystemExit) as ended:
        ask(words, tmp_path, *more)
    assert ended.value.code == 2 and not (tmp_path / "out").exists()
    (line,) = capsys.readouterr().err.splitlines()
    return line


# ---- wrong input -----------------------------------------------------------------------------------------------


def test_test_images_among_the_unlabeled_ones(sets, tmp_path, capsys):
    (tmp_path / "more").mkdir()
    smooth_image(7).save(tmp_path / "more/a.png")
    smooth_image(101, 80).save(tmp_path / "more/b.jpg", quality=80)  # of the test set, in another size
    line = refusal(capsys, sets, tmp_path, "--images", str(tmp_path / "more"))
    assert "error: 1 of the 2 images to pre-train on show what test images of 'own_b' show" in line
    assert "more/b.jpg" in line and "give --exclude-leaks" in line
    ask(sets, tmp_path, "--images", str(tmp_path / "more"), "--exclude-leaks")
    printed = capsys.readouterr().out
    assert (
        "1 images in" in printed and "1 that show test images left out" in printed and "--exclude" in printed
    )
    assert "labeled training images show" not in printed
    (tmp_path / "more/a.png").unlink()
    line = refusal(capsys, sets, tmp_path, "--images", str(tmp_path / "more"), "--exclude-leaks")
    assert "no image is left to pre-train on" in line


@pytest.mark.parametrize("more", [False, True])
def test_labeled_training_images_that_show_the_test_are_told(sets, tmp_path, capsys, more):
    """They are trained on from every start, whatever pre-training leaves out."""
    shown = sorted((tmp_path / "test/JPEGImages").iterdir())[0]
    for path in sorted((tmp_path / "train/JPEGImages").iterdir())[:1]:
        with Image.open(shown) as image:
            image.convert("RGB").save(path, quality=80)
    words = ["--exclude-leaks"]
    if more:
        (tmp_path / "more").mkdir()
        smooth_image(7).save(tmp_path / "more/a.png")
        words += ["--images", str(tmp_path / "more")]
    ask(sets, tmp_path, *words)
    printed = capsys.readouterr().out
    assert re.search(
        r"note: 1 of the \d+ labeled training images show .*train/JPEGImages/.*APs are too high", printed
    )


def test_images_below_another_folder_are_found(sets, tmp_path, capsys):
    """Labeling tools write folders of their own before the names."""
    content = {"images": [{"id": 1, "file_name": "images/a.png", "height": 9, "width": 9}], "annotations": []}
    content["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "iscrowd": 0}]
    content["annotations"][0]["area"], content["categories"] = 16, [{"id": 1, "name": "nut"}]
    (tmp_path / "labels.json").write_text(json.dumps(content))
    (tmp_path / "photos").mkdir()
    smooth_image(7).save(tmp_path / "photos/a.png")
    words = [
        word
        for n in ("photos_a", "photos_b")
        for word in ("--coco", n, str(tmp_path / "labels.json"), str(tmp_path / "photos"))
    ]
    line = refusal(capsys, words, tmp_path)
    assert "photos/images/a.png', but '" in line and "photos/a.png' does; moco-det split --images" in line


def test_hours_need_the_trial(sets, tmp_path, capsys):
    assert "--hours needs the trial" in refusal(capsys, sets, tmp_path, "--hours", "2", "--no-trial")


def test_no_unlabeled_image(sets, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert "no image in folder" in refusal(capsys, sets, tmp_path, "--images", str(tmp_path / "empty"))


def test_labels_of_another_set(sets, tmp_path, capsys):
    write_voc(tmp_path / "other", "all", range(200, 204), ("bolt", "washer"))
    words = [*sets[:4], "--voc", "own_c", str(tmp_path / "other"), "all"]
    line = refusal(capsys, words, tmp_path)
    assert "the labels of 'own_c' are of another set than those of 'own_a'" in line and "nut, washer" in line
    for path in (tmp_path / "test/JPEGImages").iterdir():
        path.unlink()
    line = refusal(capsys, sets, tmp_path)
    assert (
        "none of the 4 images of data set 'own_b' exists" in line and "the labels are of another set" in line
    )


def test_the_same_images_in_both_sets(sets, tmp_path, capsys):
    (tmp_path / "train/ImageSets/Main/few.txt").write_text("001\n002\n")
    words = [*sets[:4], "--voc", "own_d", str(tmp_path / "train"), "few"]
    assert "2 images are in 'own_a' and in 'own_d'" in refusal(capsys, words, tmp_path)


def test_one_class_is_said_to_leave_kNN_nothing_to_tell_apart(tmp_path, capsys):  # noqa: N802
    words = []
    for name, numbers in (("own_one", range(12)), ("own_one_test", range(50, 54))):
        write_voc(tmp_path / name, "all", numbers, ("bolt",))
        words += ["--voc", name, str(tmp_path / name), "all"]
    ask(words, tmp_path)
    assert "there is one class only (bolt), so kNN is always right and the effective rank alone watches" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--inits", "own"], "expected random, against which all is compared, and one or more others"),
        (["--inits", "random", "mine"], "'mine' needs a weight file, mine=backbone.pkl"),
        (["--inits", "random", "supervised=nothing.pth"], "supervised=nothing.pth: there is no such file"),
        (["--shares", "20"], "20% of the labels is left out: 3 images, fewer than 8; give --shares"),
        (["--iterations", "4"], "--iterations 4: a schedule has 8 iterations or more"),
        (["--iterations", "8", "9"], "--iterations takes one number, or one for each of the 1 shares"),
        (["--schedules", "1", "2", "3"], "--schedules takes one or two multiples"),
        (["--train", "own_a"], "give two, --voc or --coco, first the training set, or --train NAME and"),
    ],
)
def test_what_cannot_be_asked(more, message, sets, tmp_path, capsys):
    assert message in refusal(capsys, sets, tmp_path, *more)


# ---- shares, starts, recipes -----------------------------------------------------------------------------------


def records_of(counts):
    """One image an object: so many of each class."""
    kinds = [kind for kind, count in enumerate(counts) for _ in range(count)]
    return [{"annotations": [{"category_id": kind}]} for kind in kinds]


def test_shares_hold_each_class_with_each_seed():
    records = records_of((90, 8, 2))
    shares, seeds, notes = own_data.choose_shares(records, (0.01, 0.1, 0.5, 1.0), 3)
    assert "1% of the labels is left out: 1 images, fewer than 8" in notes
    assert shares == [0.1, 0.5, 1.0] and len(set(seeds)) == 3
    for seed in seeds:
        taken = [{id(r) for r in take_labels(records, share, seed)} for share in shares]
        assert taken[0] < taken[1] < taken[2]
        assert own_data.classes_of(take_labels(records, 0.1, seed)) == {0, 1, 2}
    rare = own_data.choose_shares(records_of((300, 1)), (0.05, 1.0), 20)
    assert rare[0] == [1.0] and rare[1] == [*range(1, 21)]
    assert "its 15 images hold each of the 2 classes with" in rare[2][0]


def test_a_start_that_cannot_be_had_is_left_out_by_name(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    names = ("random", "own", "supervised", "own_from_supervised", "coco_detector")
    starts, left_out = make_starts(names, 18, tmp_path, "digest")
    assert [start.name for start in starts] == ["random", "own"]
    assert [sentence.split()[0] for sentence in left_out] == [
        "supervised",
        "own_from_supervised",
        "coco_detector",
    ]
    assert "no network" in left_out[0] and "ResNet-18-FPN" in left_out[2]
    file = tmp_path / "weights.pth"
    file.write_bytes(b"weights")
    starts, left_out = make_starts(
        ("random", f"supervised={file}", "own_from_supervised"), 18, tmp_path, "digest"
    )
    assert [start.name for start in starts] == [
        "random",
        "supervised",
        "own_from_supervised",
    ] and not left_out
    assert len({start.digest for start in starts}) == 3


def test_weights_of_other_projects_are_compared(sets, tmp_path, capsys):
    """Nothing is pre-trained then, so the plan is silent about it, and images that show the test do no harm."""
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "other.pth")
    convert(tmp_path / "other.pth", tmp_path / "other.pkl")
    words = [*sets, "--output", str(tmp_path / "out"), "--num-gpus", "0", "--no-trial", "--shares", "100"]
    words += [
        "--inits",
        "random",
        f"theirs={tmp_path / 'other.pkl'}",
        "--schedules",
        "1",
        "--iterations",
        "8",
    ]
    (tmp_path / "more").mkdir()
    shutil.copy(sorted((tmp_path / "test/JPEGImages").iterdir())[0], tmp_path / "more/a.jpg")
    words += ["--images", str(tmp_path / "more")]
    own.main([*words, "--dry-run"])
    printed = capsys.readouterr().out
    assert "start theirs: " in printed and "pre-training" not in printed and "epochs" not in printed
    args = own_parser().parse_args(words)
    args.options = []
    setting = settle(args)
    write_inputs(setting)
    (run,) = [one for one in setting.planned(first_study(setting), {}) if one.init == "theirs"][:1]
    init = run.command[run.command.index("--init") + 1]
    assert Path(init).is_absolute() and Path(init).read_bytes() == (tmp_path / "other.pkl").read_bytes()
    train([run.command[1], *run.command[2:3], "--dry-run", *run.command[3:]])


def test_given_keys_are_read_as_the_config_reads_them():
    assert given_keys(["A.B", "(1, 2)", "C", "text", "D", "0.1"]) == {"A.B": (1, 2), "C": "text", "D": 0.1}
    with pytest.raises(ValueError, match="must be KEY VALUE pairs; found 1 words"):
        given_keys(["A"])


def test_a_recipe_is_known_by_its_content_and_not_by_its_place(tmp_path):
    base = REPOSITORY / "configs/toy/Base-RCNN-R18-FPN.yaml"
    elsewhere = tmp_path / "copy.yaml"
    shutil.copyfile(base, elsewhere)
    text = '_BASE_: "{}"\nSOLVER:\n  BASE_LR: {}\n'
    assert recipe_digest(text.format(base, 0.1)) == recipe_digest(text.format(elsewhere, 0.1))
    assert recipe_digest(text.format(base, 0.1)) != recipe_digest(text.format(base, 0.2))
    elsewhere.write_text(base.read_text().replace("IMS_PER_BATCH: 8", "IMS_PER_BATCH: 4"))
    assert recipe_digest(text.format(base, 0.1)) != recipe_digest(text.format(elsewhere, 0.1))


def test_a_coco_detector_is_a_start_as_a_whole(sets, tmp_path, capsys):
    """Its input, its FPN without norms, and its 80 classes, of which the last layers are left out."""
    words = [
        *sets,
        "--output",
        str(tmp_path / "out"),
        "--num-gpus",
        "0",
        "--shares",
        "100",
        "--schedules",
        "1",
    ]
    file = tmp_path / "model_final.pkl"
    file.write_bytes(b"")
    words += ["--no-trial", "--inits", "random", f"coco_detector={file}", "--iterations", "8"]
    args = own_parser().parse_args(words)
    args.options = []
    setting = settle(args)
    write_inputs(setting)
    cfg = get_cfg()
    cfg.merge_from_file(setting.recipes.detector)
    cfg.merge_from_list([*COCO_PAIRS, "MODEL.ROI_HEADS.NUM_CLASSES", 80, "MODEL.DEVICE", "cpu"])
    tensors = {name: tensor.numpy() for name, tensor in build_model(cfg).state_dict().items()}
    file.write_bytes(pickle.dumps({"model": tensors, "__author__": "Detectron2 Model Zoo"}))
    (run,) = [one for one in setting.planned(first_study(setting), {}) if one.init == "coco_detector"][:1]
    train([run.command[1], *run.command[2:3], "--dry-run", *run.command[3:]])
    assert "a whole detector" in " ".join(capsys.readouterr().out.split())  # its lines are wrapped
    init = read_init(run.command[run.command.index("--init") + 1])
    assert (init.name, init.preprocessing.format, init.preprocessing.stride_in_1x1) == (
        "coco_detector",
        "BGR",
        True,
    )
    assert run.command[run.command.index("MODEL.FPN.NORM") + 1] == ""


# ---- what is run, kept and run again, with runs that take no time -----------------------------------------


@pytest.fixture
def fake_steps(monkeypatch):
    """Steps that leave the records of runs whose AP is known, and are listed as they are carried out."""
    done = []

    def carry(steps, logs, *args, **kwargs):
        for step in steps:
            if step.result.exists():
                continue
            done.append(step)
            step.result.parent.mkdir(parents=True, exist_ok=True)
            step.result.write_text(
                json.dumps(record_of(step.command)) if step.result.suffix == ".json" else ""
            )

    for module in ("carry_out", "tuning"):
        monkeypatch.setattr(f"moco_det.benchmark.own.{module}.run_steps", carry)
    return done


def record_of(command):
    """AP 10 from random weights and 15 from others; of the learning rates, the highest and the lowest are best."""
    if command[0].endswith("pretrain_moco.py"):
        return make_record(stage="pretrain", extra={"task": "own/own_a_pretraining", "iterations": 5})
    value = dict(itertools.pairwise(command)).get
    init = Path(value("--init")).stem
    rate, seed = float(value("SOLVER.BASE_LR") or 0.01), int(value("SEED"))
    task = "own/own_a" + (", 50% of the labels" if value("DATASETS.LABEL_FRACTION") else "")
    ap = (10 + 10 * rate if init == "random" else 15 - 10 * rate) + seed
    extra = {"task": task, "init": init, "iterations": int(value("SOLVER.MAX_ITER")), "weights_sha256": init}
    metrics = {"bbox/AP": ap}
    return make_record(seed=seed, metrics=metrics, extra=extra, recipe_hash=str(rate), config_hash=str(rate))


def study_words(sets, tmp_path, *more):
    words = [
        *sets,
        "--output",
        str(tmp_path / "out"),
        "--results",
        str(tmp_path / "results"),
        "--num-gpus",
        "0",
    ]
    return [
        *words,
        "--no-trial",
        "--inits",
        "random",
        "own",
        "--shares",
        "50",
        "100",
        "--schedules",
        "1",
        *more,
    ]


def test_tuned_starts_are_compared_at_their_own_rates(sets, tmp_path, capsys, fake_steps):
    own.main(study_words(sets, tmp_path, "--tune-lr"))
    printed = capsys.readouterr().out
    assert "learning rate of random: 0.06 (AP by rate 0.0067: 10.1, 0.02: 10.2, 0.06: 10.6)" in printed
    assert "learning rate of own: 0.0067" in printed
    tuned = [step for step in fake_steps if "tuning" in str(step.result)]
    assert len(tuned) == 6 and {step.command[step.command.index("SEED") + 1] for step in tuned} == {"0"}
    assert not any(str(tmp_path / "test") in step.command for step in tuned)
    assert printed.count("(own): helps.") == 2
    runs, incomplete = find_runs([tmp_path / "out/study"])
    assert not incomplete and {(r.init, r.record["extra"].get("learning_rate")) for r in runs} >= {
        ("random", 0.06),
        ("own", 0.0067),
    }
    assert "| learning rate |" in (tmp_path / "out/report/report.md").read_text()


def test_rates_are_tried_on_training_images_that_are_held_out(sets, tmp_path):
    """Two parts that together are the labeled training images: same boxes, classes and files; none of the test."""
    data = read_data(own_parser().parse_args([*sets, "--output", str(tmp_path / "out")]))
    words = hold_out(data, tmp_path / "tuning")
    parsed = train_parser().parse_args(["--config-file", "x", *words])
    parts = {name: json.loads(Path(path).read_text()) for name, path, _ in parsed.coco}
    assert [len(part["images"]) for part in parts.values()] == [13, 3]
    assert "".join(parsed.opts).endswith("DATASETS.TRAIN('tuning_train',)DATASETS.TEST('tuning_held_out',)")
    files = [image["file_name"] for part in parts.values() for image in part["images"]]
    assert sorted(files) == sorted(record["file_name"] for record in data.records)
    for part in parts.values():
        assert [entry["name"] for entry in part["categories"]] == ["bolt", "nut"]
        numbers = {image["id"]: int(Path(image["file_name"]).stem) for image in part["images"]}
        assert len(part["annotations"]) == len(numbers)
        for box in part["annotations"]:
            assert box["category_id"] == numbers[box["image_id"]] % 2 and box["bbox"] == [8, 8, 32, 22]
    assert hold_out(data, tmp_path / "again")[1] == words[1]
    for name in parts:
        assert (tmp_path / f"again/{name}.json").read_text() == (tmp_path / f"tuning/{name}.json").read_text()


def test_what_is_kept_is_not_run_again_unless_its_pre_training_is_another(sets, tmp_path, capsys, fake_steps):
    words = study_words(sets, tmp_path)
    own.main(words)
    assert len(fake_steps) == 2 + 2 * 2 * 3  # pre-training, conversion, runs
    own.main(words)
    assert len(fake_steps) == 14  # all was there

    shutil.rmtree(tmp_path / "out")
    own.main(words)
    assert len(fake_steps) == 14 and "done before, as its record in results/ says" in capsys.readouterr().out

    shutil.rmtree(tmp_path / "out")
    lost = next(run for run in load_results(tmp_path / "results", "own-own_a") if run.init == "own")
    lost.folder.with_suffix(".json").unlink()
    own.main(words)
    again = [step.title for step in fake_steps[14:]]
    assert len(again) == 2 + 6 and all("from random" not in title for title in again[1:])
    assert "5 runs from own are in results/, but not all of them" in capsys.readouterr().out

    write_voc(tmp_path / "train", "all", range(16), boxes=2)  # other labels: other runs
    shutil.rmtree(tmp_path / "out")
    own.main(words)
    assert len(fake_steps) == 22 + 12 + 2


def test_a_narrowed_study_misses_no_run_that_was_not_begun(sets, tmp_path, capsys, fake_steps):
    own.main(study_words(sets, tmp_path))
    plan = tmp_path / "out/study/benchmark.json"
    runs = json.loads(plan.read_text())["runs"]
    runs["labels1/8_own_seed1"] = {**next(iter(runs.values())), "task": "other"}
    plan.write_text(json.dumps({"runs": runs}))
    own.main(study_words(sets, tmp_path))
    assert not find_runs([tmp_path / "out/study"])[1]


# ---- the whole command -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toyworld(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "toyworld"
    sizes = {"unlabeled": 48, "per-class-train": 1, "per-class-test": 1, "train": 24, "test": 12}
    make_toyworld(["--output", str(folder), *(w for k, v in sizes.items() for w in (f"--num-{k}", str(v)))])
    return folder


def test_a_study_of_the_toy_world_ends_in_an_answer(toyworld, tmp_path, capsys):
    voc, output, results = toyworld / "VOC2007", tmp_path / "out", tmp_path / "results"
    words = ["--suite", "own", "--voc", "toys", str(voc), "trainval", "--voc", "toys_test", str(voc), "test"]
    words += ["--images", str(toyworld / "unlabeled"), "--inits", "random", "own", "--shares", "100"]
    words += [
        "--schedules",
        "1",
        "--iterations",
        "8",
        "--pretrain-epochs",
        "1",
        "--hours",
        "1",
        "--jobs",
        "1",
    ]
    words += [
        "--num-gpus",
        "0",
        "--output",
        str(output),
        "--results",
        str(results),
        "--",
        "INPUT.MIN_SIZE_TEST",
        "64",
    ]
    words += ["INPUT.MIN_SIZE_TRAIN", "(64,)", "SOLVER.IMS_PER_BATCH", "2", "TEST.PRECISE_BN.NUM_ITER", "2"]
    benchmark.main(words)
    printed = capsys.readouterr().out
    assert (
        "labels: toys, 24 images" in printed and "given: INPUT.MIN_SIZE_TEST, INPUT.MIN_SIZE_TRAIN" in printed
    )
    assert "6 runs: 2 starts, seeds 1, 2, 3; 1 epochs" in printed and "time, from a trial:" in printed
    page = (output / "report/report.html").read_text()
    assert page.index("Did it help?") < page.index("Results") and "(own): too low to tell" in printed
    runs, incomplete = find_runs([output / "study"])
    assert not incomplete and sorted(run.stage for run in runs) == ["finetune"] * 6 + ["pretrain"]
    assert {run.weights for run in runs if run.init == "own"} & {
        run.weights for run in runs if run.init == "random"
    } == set()
    assert any("effective_rank" in run.metrics for run in runs)
    kept = load_results(results, "own-toys")
    assert len(kept) == 7 and len({run.record["extra"].get("fingerprint") for run in kept}) == 7
    document = "<!-- own:toys -->\n<!-- /own:toys -->\n"
    assert "too low to tell" in render(document, results)
    assert not [*output.glob("study/labels*/*/model_0*.pth")]  # of finished runs the last checkpoint stays

    # Elsewhere, from what is kept: nothing is trained.
    answer = render(document, results)
    shutil.rmtree(output)
    place = words.index("--hours")
    benchmark.main(["own", "--no-trial", *words[2:place], *words[place + 2 :]])
    again = capsys.readouterr().out
    assert again.count("done before, as its record in results/ says") == 6
    assert " took " not in again and "convert the weights" not in again
    assert render(document, results) == answer and len(load_results(results, "own-toys")) == 7
    assert json.loads((output / "own.json").read_text())["study"]["short"] == [8]
