"""Run folders with known numbers, as the stages leave them."""

import json

import pytest
from PIL import Image

MACHINE = {"cpu": "Some CPU", "cores": 2, "gpus": [], "device": "cpu", "python": "3.12.1", "torch": "2.11.0"}


def make_record(**changes):
    record = {
        "stage": "finetune",
        "config_hash": "c0ffee000000",
        "recipe_hash": "0ff0ff000000",
        "command": "python tools/train_net.py --init moco",
        "commit": "abc1234567",
        "machine": MACHINE,
        "seed": 0,
        "metrics": {"bbox/AP": 10.0, "bbox/AP50": 20.0},
        "seconds": 120.0,
        "extra": {"task": "toy/faster_rcnn", "init": "random", "iterations": 100},
        "finished": "2026-01-02T03:04:05+00:00",
    }
    return {**record, **changes}


def write_json(path, content):
    path.write_text(json.dumps(content))


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def make_run(tmp_path):
    """make_run(name, init=…, seed=…, ap=…, …) -> folder of a finished fine-tuning run with an AP curve."""

    def make(
        name, init="random", seed=0, ap=10.0, iterations=100, task="toy/faster_rcnn", extra=(), **changes
    ):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        about = {"task": task, "init": init, "iterations": iterations, **dict(extra)}
        metrics = {"bbox/AP": ap, "bbox/AP50": 2 * ap}
        record = make_record(**{"seed": seed, "metrics": metrics, "extra": about, **changes})
        write_json(folder / "run.json", record)
        half, full = iterations // 2 - 1, iterations - 1
        lines = [{"iteration": 19, "total_loss": 2.0}, {"iteration": half, "bbox/AP": ap / 2}]
        write_lines(folder / "metrics.json", [*lines, {"iteration": full, "bbox/AP": ap, "total_loss": 1.0}])
        return folder

    return make


@pytest.fixture
def make_pretraining(tmp_path):
    """A finished pre-training run with every file that the report shows."""

    def make(name="pretrain", seed=0):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        metrics = {"knn_untrained": 21.0, "knn_accuracy": 33.0}
        extra = {"images": 24000, "views": 960000}
        record = make_record(stage="pretrain", seed=seed, metrics=metrics, extra=extra)
        write_json(folder / "run.json", record)
        lines = [{"iteration": i, "total_loss": 6 - i / 100, "accuracy": i / 400} for i in range(19, 100, 20)]
        write_lines(folder / "metrics.json", [{**line, "queue_fill": 1.0} for line in lines])
        Image.new("RGB", (64, 32), "red").save(folder / "sample_views.png")
        Image.new("RGB", (32, 32), "blue").save(folder / "fish.png")
        near = [
            {"path": "fish.png", "label": "fish", "similarity": 0.9},
            {"path": "gone.png", "label": "cup", "similarity": 0.1},
        ]
        query = {"query": "fish.png", "label": "fish", "neighbors": near}
        write_json(folder / "neighbors.json", [query])
        return folder

    return make


@pytest.fixture
def add_detections():
    """Leaves sample_detections.json and its image in a run folder."""

    def add(folder):
        Image.new("RGB", (80, 60), "green").save(folder / "test.png")
        entry = {
            "file_name": "test.png",
            "classes": ["fish"],
            "ground_truth": [{"bbox": [10, 10, 40, 40], "class": "fish"}],
            "detections": [{"bbox": [12, 9, 41, 42], "class": "fish", "score": 0.87}],
        }
        write_json(folder / "sample_detections.json", [entry])

    return add
