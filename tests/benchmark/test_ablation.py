"""Ablations: what their points are, what is never mixed, and what the table and the figure say."""

import json
from collections import defaultdict
from dataclasses import dataclass

import pytest
from PIL import Image

from moco_det.benchmark import ablation, ablation_plan
from moco_det.benchmark.ablation_plan import epoch_curves, plan_ablations, read_ablation_runs
from moco_det.benchmark.steps import Step, run_chains
from moco_det.model_zoo.ablations import ABLATIONS, SCALES, different_options, point_name, recipe_text
from moco_det.pretrain.command import argument_parser
from moco_det.pretrain.moco.model import MoCo
from moco_det.pretrain.settings import build_config
from moco_det.report import ablation_figure
from moco_det.report.ablation_results import (
    LINEAR,
    UNTRAINED,
    Line,
    ablation_table,
    lines_of,
)
from moco_det.report.document import markdown_table
from moco_det.report.kept_results import load_results, render
from moco_det.report.statistics import summarize

CLASSIFIER = "toy/pretrain_moco_v2_R_18"  # any recipe; the fake tool reads none


@pytest.fixture
def folders(tmp_path):
    """(images, classes), of one image each."""
    for name in ("images", "classes"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), "red").save(tmp_path / name / "a.jpg")
    return tmp_path / "images", tmp_path / "classes"


@pytest.fixture(autouse=True)
def classifiers(monkeypatch):
    for scale in SCALES:
        monkeypatch.setitem(ablation_plan.CLASSIFIERS, scale, CLASSIFIER)


# ---- the points ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_point_is_a_run_that_pretraining_accepts(name, scale):
    for point in ABLATIONS[name].points[scale]:
        if point.script != "tools/pretrain_moco.py":
            continue
        options = [*point.options, "TEST.KNN.IMAGES", "classes"]
        words = [
            "--config-file",
            f"configs/{point.recipe}.yaml",
            "--images",
            "x",
            "--num-gpus",
            "0",
            *options,
        ]
        cfg = build_config(argument_parser().parse_args(words))
        MoCo.check_config(cfg, 1)
        assert cfg.SOLVER.CHECKPOINT_EPOCHS <= cfg.SOLVER.EPOCHS
        assert cfg.SOLVER.EPOCHS % cfg.TEST.KNN.PERIOD_EPOCHS == 0
        if name == "dictionary":
            kind = {"MoCo": "queue", "memory bank": "memory_bank", "end-to-end": "end_to_end"}[point.curve]
            size = cfg.SOLVER.IMS_PER_BATCH if kind == "end_to_end" else cfg.MODEL.MOCO.QUEUE_SIZE
            assert (cfg.MODEL.MOCO.DICTIONARY, size) == (kind, point.x)
        elif name == "momentum":
            assert cfg.MODEL.MOCO.MOMENTUM == float(point.x)
        elif name == "temperature":
            assert cfg.MODEL.MOCO.TEMPERATURE == float(point.x)
            assert cfg.MODEL.MOCO.MLP == (point.curve == "with MLP")


@pytest.mark.parametrize("name", [name for name, one in ABLATIONS.items() if one.paper and not one.by_epoch])
def test_the_papers_scale_has_the_papers_points(name):
    own = {(point.curve, point.x) for point in ABLATIONS[name].points["paper"]}
    printed = {(curve, x) for curve, points in ABLATIONS[name].paper.items() for x, _ in points}
    assert own == printed


def test_ablations_share_the_runs_that_are_the_same(folders):
    def names(*ablations):
        return {run.name for run in plan_ablations(ablations, "imagenette", 1, *folders)}

    assert names("dictionary") & names("momentum") == {"moco_v2_6ep_R_18", "untrained_pretrain_moco_v2_R_18"}
    assert len(names("dictionary", "momentum")) == len(names("dictionary")) + len(names("momentum")) - 2
    for one in ABLATIONS.values():
        for points in one.points.values():
            assert len({point_name(point) for point in points}) == len(points)


@pytest.mark.parametrize("scale", SCALES)
def test_points_with_one_name_are_one_run(scale):
    """Also over ablations: what is planned second would be left out, and its results would be the other's."""
    made_of = defaultdict(set)
    for one in ABLATIONS.values():
        for point in one.points[scale]:
            own = different_options(point.recipe, point.options) if point.options else ()
            made_of[point_name(point)].add((recipe_text(point), own))
    assert {name: len(kinds) for name, kinds in made_of.items() if len(kinds) > 1} == {}


def test_seeds_come_one_after_the_other_and_options_go_to_all(folders):
    runs = plan_ablations(["momentum"], "imagenette", 3, *folders, ["SOLVER.EPOCHS", "2"])
    assert [run.seed for run in runs] == sorted(run.seed for run in runs) and len(runs) == 3 * (1 + 5)
    assert all(run.options[-2:] == ("SOLVER.EPOCHS", "2") for run in runs if run.recipe)


def test_images_recipe_and_options_make_other_runs(folders):
    images, classes = folders
    prints = [plan_ablations(["momentum"], "imagenette", 1, images, classes)[1].fingerprint]
    prints.append(
        plan_ablations(["momentum"], "imagenette", 1, images, classes, ["SOLVER.EPOCHS", "2"])[1].fingerprint
    )
    Image.new("RGB", (8, 8), "red").save(images / "b.jpg")
    prints.append(plan_ablations(["momentum"], "imagenette", 1, images, classes)[1].fingerprint)
    (classes / "a.jpg").rename(classes / "c.jpg")
    prints.append(plan_ablations(["momentum"], "imagenette", 1, images, classes)[1].fingerprint)
    assert len({json.dumps(one) for one in prints}) == 4
    with pytest.raises(ValueError, match="nowhere .*--images .*--classes"):
        plan_ablations(["momentum"], "imagenette", 1, images / "nowhere", classes)


def test_code_and_judge_make_other_runs(folders, monkeypatch):
    """A kNN or probe of another size is another number of the same encoder."""

    def fingerprints():
        return [one.fingerprint for one in plan_ablations(["momentum"], "imagenette", 1, *folders)[:2]]

    before = fingerprints()
    monkeypatch.setattr(ablation_plan, "running_commit", lambda: "another")
    other_code = fingerprints()
    monkeypatch.setitem(ablation_plan.CLASSIFIERS, "imagenette", "ImageNet-Classification/linear_R_50_100ep")
    for old, code, classifier in zip(before, other_code, fingerprints(), strict=True):
        assert old != code != classifier and old["recipe"] == code["recipe"] != classifier["recipe"]


# ---- the command, with tools that only write what the real ones would -----------------------------------------

PRETRAIN = """
import json, pathlib, sys
words = sys.argv
if "0.9" in words:
    sys.exit("error: the loss is nan")
out = pathlib.Path(words[words.index("OUTPUT_DIR") + 1])
out.mkdir(parents=True)
seed = int(words[words.index("SEED") + 1])
after = 10.0 if "0.0" in words else 30.0 + seed
record = json.loads(pathlib.Path(__file__).with_name("record.json").read_text())
metrics = {"knn_untrained": 16.0, "knn_accuracy": after, "epoch": 2.0}
(out / "run.json").write_text(json.dumps({**record, "stage": "pretrain", "seed": seed, "metrics": metrics}))
lines = [{"iteration": 0, "knn_accuracy": 16.0}, {"iteration": 99, "knn_accuracy": after, "accuracy": 0.5}]
(out / "metrics.json").write_text("".join(json.dumps(line) + "\\n" for line in lines))
for name in ("model_0000049.pth", "model_final.pth", "last_checkpoint"):
    (out / name).write_text("weights of 0.0" if "0.0" in words else "weights")
"""
EVALUATION = """
import json, pathlib, sys
words = sys.argv
accuracy = 15.0
if "--weights" in words:
    weights = pathlib.Path(words[words.index("--weights") + 1]).read_text()
    accuracy = {"weights of 0.0": 15.0}.get(weights, 40.0)
out = pathlib.Path(words[words.index("OUTPUT_DIR") + 1])
out.mkdir(parents=True)
seed = int(words[words.index("SEED") + 1])
record = json.loads(pathlib.Path(__file__).with_name("record.json").read_text())
(out / "features").mkdir()
(out / "features/train.pt").write_text("cached")
metrics = {"linear/top1": accuracy + seed, "knn/top1": 20.0 + seed}
(out / "run.json").write_text(json.dumps({**record, "stage": "classify", "seed": seed, "metrics": metrics}))
"""


@pytest.fixture
def tools(tmp_path, monkeypatch, make_run):
    """tools/ in which m = 0.9 fails, and m = 0 learns nothing."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools/pretrain_moco.py").write_text(PRETRAIN)
    (tmp_path / "tools/train_classifier.py").write_text(EVALUATION)
    record = make_run("any", seconds=60.0) / "run.json"
    record.rename(tmp_path / "tools/record.json")
    monkeypatch.setattr(ablation_plan, "REPOSITORY", tmp_path)


@pytest.fixture
def words(folders, tmp_path):
    images, classes = map(str, folders)
    where = ["--output", str(tmp_path / "out"), "--results", str(tmp_path / "results")]
    return ["momentum", "--images", images, "--classes", classes, "--seeds", "2", "--num-gpus", "0", *where]


def test_the_command_goes_on_after_a_failure_and_says_what_is_missing(
    tools, words, tmp_path, capfd, monkeypatch
):
    with pytest.raises(SystemExit):
        ablation.main(words)
    first = capfd.readouterr()
    assert "2 of 12 runs failed" in first.err and "the loss is nan" in first.err
    table = (tmp_path / "out/momentum.md").read_text()
    assert "| untrained |  | 2 | 16.5 ± 0.7 | 21.5 ± 0.7 | — | — | 1.0 |" in table
    shown = {line.split(" | ")[1]: line for line in table.splitlines() if line.startswith("| MoCo")}
    assert list(shown) == ["0", "0.9", "0.99", "0.996", "0.999", "0.9999"]
    assert "| 2 | 16.5 ± 0.7, fails: not above untrained | 21.5 ± 0.7 | 50.0 | fails | 2.0 |" in shown["0"]
    assert "| — | — | — | — | 55.2 | — |" in shown["0.9"]
    assert "| 2 | 41.5 ± 0.7 | 21.5 ± 0.7 | 50.0 | 57.8 | 2.0 |" in shown["0.99"]
    assert table.count("Incomplete: runs/") == 2
    with Image.open(tmp_path / "out/momentum.png") as picture:
        assert picture.width > picture.height
    content = json.loads((tmp_path / "out/momentum.json").read_text())
    assert [len(point["runs"]) for point in content["points"]] == [2, 2, 0, 2, 2, 2, 0]
    # The weights are gone, the records are not; nothing is run again.
    assert not list((tmp_path / "out").rglob("*.pt*")) and not list((tmp_path / "out").rglob("last_check*"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/runs").rglob("run.json")}
    with pytest.raises(SystemExit):
        ablation.main(words)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out/runs").rglob("run.json")}
    assert len(before) == 18
    monkeypatch.setattr(ablation_plan, "running_commit", lambda: "another")
    with pytest.raises(SystemExit):
        ablation.main(words)
    assert "was started as another run (code" in capfd.readouterr().err


def test_kept_runs_make_the_same_table(tools, words, folders, tmp_path):
    with pytest.raises(SystemExit):
        ablation.main(words)
    kept = load_results(tmp_path / "results", "ablations")
    assert len(kept) == 10
    assert sum(run.record["extra"].get("classify", {}).get("seconds") == 60 for run in kept) == 8
    marked = "<!-- ablation:momentum-imagenette -->\n<!-- /ablation:momentum-imagenette -->"
    text = render(marked, tmp_path / "results")
    runs, _ = read_ablation_runs(plan_ablations(["momentum"], "imagenette", 2, *folders), tmp_path / "out")
    lines, notes = lines_of("momentum", "imagenette", runs)
    assert markdown_table(ablation_table("momentum", "imagenette", lines)) in text and not notes
    empty = (
        "<!-- ablation:shuffle_bn-imagenette -->\nNot measured yet.\n<!-- /ablation:shuffle_bn-imagenette -->"
    )
    assert render(empty, tmp_path / "results") == empty  # random weights alone are no ablation
    # Runs of another code stand apart and are not averaged with these.
    paths = (tmp_path / "results/ablations").glob("*.json")
    path = next(path for path in paths if '"moco_v2_6ep_R_18"' in path.read_text())
    path.write_text(json.dumps({**json.loads(path.read_text()), "commit": "another"}))
    lines, notes = lines_of("momentum", "imagenette", load_results(tmp_path / "results", "ablations"))
    assert sum(line.row is not None for line in lines) == 6 and "runs of different commit" in notes[0]


def test_points_stand_beside_random_weights_of_the_same_protocol(tools, words, folders, tmp_path):
    """Others, such as those on held-out images, may be in the same suite; the points of each find their own."""
    with pytest.raises(SystemExit):
        ablation.main(words)
    folder = tmp_path / "results/ablations"
    for path in folder.glob("*.json"):
        record = json.loads(path.read_text())
        if record["extra"]["task"].startswith("untrained"):
            held_out = {**record, "recipe_hash": "held out", "config_hash": "a", "metrics": {LINEAR: 99.0}}
            (folder / f"0{path.name}").write_text(json.dumps(held_out))
    kept = load_results(tmp_path / "results", "ablations")
    lines, _ = lines_of("momentum", "imagenette", kept)
    assert lines[0].summary(LINEAR).mean == lines[1].untrained.summary(LINEAR).mean == 16.5
    points = [run for run in kept if not run.task.startswith("untrained")]
    for run in points:
        run.record["extra"]["classify"]["recipe_hash"] = "held out"
    lines, _ = lines_of("momentum", "imagenette", kept)
    assert lines[0].summary(LINEAR).mean == lines[1].untrained.summary(LINEAR).mean == 99.0


@pytest.mark.parametrize("name", ["dictionary-huge", "dictonary-imagenette", "imagenette"])
def test_an_unknown_ablation_in_a_document_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="dictionary, momentum"):
        render(f"<!-- ablation:{name} -->\n<!-- /ablation:{name} -->", tmp_path)


def test_a_dry_run_starts_nothing(words, tmp_path, capsys):
    ablation.main([*words, "--dry-run", "--", "SOLVER.EPOCHS", "2"])
    printed = capsys.readouterr().out
    assert printed.count("tools/pretrain_moco.py") == printed.count("--weights") == 10
    assert printed.count("tools/train_classifier.py") == 12
    assert printed.count("SOLVER.EPOCHS 2") == 10 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seeds", "0"], "expected a whole number from 1 on, found '0'"),
        (["--", "SOLVER.EPOCHS"], "options after -- must be KEY VALUE pairs; found 1 words"),
        (["--num-gpus", "99"], "--num-gpus is 99 for each run, but this machine has"),
        (["--", "SOLVER.EPOCH", "2"], "match: 'SOLVER.EPOCHS'"),
    ],
)
def test_what_cannot_be_asked(words, more, message, capsys):
    with pytest.raises(SystemExit):
        ablation.main([*words, *more])
    assert message in capsys.readouterr().err


# ---- curves, figures, chains ----------------------------------------------------------------------------------


def test_the_pretext_accuracy_of_an_epoch_is_its_mean():
    curves = {
        "knn_accuracy": [(0, 16.0), (9, 20.0), (19, 30.0)],
        "accuracy": [(4, 0.25), (9, 0.75), (14, 0.875), (19, 0.625), (24, 0.0)],
    }
    found = epoch_curves(curves)
    assert found["pretext_accuracy"] == [(9, 50.0), (19, 75.0)]
    assert found["knn_accuracy"] == curves["knn_accuracy"]


@pytest.mark.parametrize("name", ABLATIONS)
def test_figures_draw_before_anything_is_measured(name):
    assert ablation_figure.ablation_figure(name, lines_of(name, "imagenette", [])[0]).startswith(b"\x89PNG")


@dataclass
class MeasuredRow:
    """A row whose linear accuracy is known."""

    mean: float

    def summary(self, metric):
        return summarize([self.mean - 1, self.mean + 1]) if metric == LINEAR else None


def test_the_figure_has_the_points_at_their_places_and_random_weights_as_a_line(monkeypatch):
    monkeypatch.setattr(ablation_figure, "to_png", lambda figure: figure)
    lines = [Line(UNTRAINED, "", MeasuredRow(20.0))]
    lines += [Line("MoCo", k, MeasuredRow(mean)) for k, mean in ((32, 22.0), (2048, 25.0))]
    axis = ablation_figure.ablation_figure("dictionary", lines).axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["32", "2048"]
    drawn = {tuple(line.get_ydata()) for line in axis.lines}
    assert {(22.0, 25.0), (20.0, 20.0)} <= drawn


def test_steps_of_a_chain_follow_one_another_and_a_failure_ends_its_own_chain_alone(tmp_path):
    def step(name, needs=None):
        code = (
            f"import pathlib; assert {needs is None} or pathlib.Path({str(tmp_path / str(needs))!r}).exists()"
        )
        code += f"; pathlib.Path({str(tmp_path / name)!r}).write_text('')"
        return Step(name, ("-c", code), tmp_path / name)

    bad = Step("bad", ("-c", "raise SystemExit(3)"), tmp_path / "bad")
    chains = [(step("a"), step("b", "a")), (bad, step("never")), (step("c"), step("d", "c"))]
    with pytest.raises(ValueError, match="1 of 3 runs failed"):
        run_chains(chains, tmp_path / "logs", jobs=2)
    assert all((tmp_path / name).exists() for name in "abcd") and not (tmp_path / "never").exists()


def test_shards_are_told_apart_by_names_and_sizes(tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.tar").write_bytes(b"x" * number)
    both, one = tmp_path / "{0..1}.tar", tmp_path / "0.tar"
    before = ablation_plan.fingerprint_images(both)
    assert before != ablation_plan.fingerprint_images(one)
    one.write_bytes(b"longer")
    assert before != ablation_plan.fingerprint_images(both)
    with pytest.raises(ValueError, match=r"2.tar' does not exist, after 2 that do"):
        ablation_plan.fingerprint_images(tmp_path / "{0..2}.tar")
