"""Numbers that runs stored are found by the names that reports read, of today and of before."""

import json

from moco_det.model_zoo.tasks import METRICS
from moco_det.report.kept_results import load_results
from moco_det.report.runs import read_curves
from moco_det.testing.core import REPOSITORY
from moco_det.utils import metric_names

THEN = REPOSITORY / "tests/c586ef8"
NAMES = {name: value for name, value in vars(metric_names).items() if name.isupper() and name != "RENAMED"}
# What other runs measure.
NOT_OF_MOCO = {"BANK_FILL", "LINEAR_TOP1", "LINEAR_TOP5", "KNN_TOP1", "PRETEXT_ACCURACY"}


def test_a_kept_run_of_pretraining_has_every_number():
    (run,) = [run for run in load_results(THEN / "results", "photos") if run.stage == "pretrain"]
    assert run.metrics["queue_fill"] == 1.0 and "queue_real" not in run.metrics
    later = {"EFFECTIVE_RANK", "EMBEDDING_STD"}  # measured since
    missing = {name for name, value in NAMES.items() if value not in run.metrics}
    assert missing == NOT_OF_MOCO | later


def test_kept_ablations_have_the_numbers_of_the_table():
    runs = load_results(THEN / "results", "ablations")
    assert all({metric_names.LINEAR_TOP1, metric_names.KNN_TOP1} <= {*run.metrics} for run in runs)
    assert any(metric_names.PRETEXT_ACCURACY in run.curves for run in runs)


def test_every_kept_curve_is_one_that_reports_read():
    read = {*NAMES.values(), *metric_names.RENAMED, *METRICS}
    paths = [path for path in REPOSITORY.glob("results/*/*.json") if path.parent.name != "speed"]
    found = {name for path in paths for name in json.loads(path.read_text())["curves"]}
    assert len(found) > 3 and found <= read


def test_of_a_run_that_wrote_a_number_by_both_names_todays_stands(tmp_path):
    lines = [{"iteration": 0, "queue_real": 0.5, "bank_real": 0.1}, {"iteration": 1, "queue_fill": 0.75}]
    path = tmp_path / "metrics.json"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read_curves(path)[0] == {"queue_fill": [(0, 0.5), (1, 0.75)], "bank_fill": [(0, 0.1)]}
    for values in ({"queue_real": 0.5, "queue_fill": 1.0}, {"queue_fill": 1.0, "queue_real": 0.5}):
        assert metric_names.with_todays_names(values) == {"queue_fill": 1.0}
