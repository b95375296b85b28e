"""A learning rate for each start, chosen on labeled training images that are held out: never on the test set."""

import dataclasses
import json
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_dict

from moco_det.benchmark.own.data import OwnData
from moco_det.benchmark.own.plan import Study, run_step_of
from moco_det.benchmark.own.settle import RATES, Setting
from moco_det.benchmark.steps import run_steps
from moco_det.engine.record import read_run_record
from moco_det.model_zoo.tasks import main_metric
from moco_det.utils.seeding import numpy_generator

SEED = 0  # of no run of the study
HELD_OUT = 0.2  # of the labeled training images
TRAIN, TEST = "tuning_train", "tuning_held_out"


def tune(setting: Setting, study: Study) -> dict[str, float]:
    """The best learning rate of each start, by AP of one run each on the shortest schedule.

    The runs train on four fifths of the labeled training images, or on as many as the share has, and are tested on
    the others.
    """
    folder, base = setting.output / "tuning", float(setting.value(0, "SOLVER.BASE_LR"))
    share, schedule, iterations = min(study.schedules, key=lambda entry: (entry[2], -entry[0]))
    share = min(1.0, share / (1 - HELD_OUT))
    words = (*setting.flags(), *hold_out(setting.data, folder))
    tried = {}
    for start in setting.starts_of(study):
        for rate in (float(f"{part * base:.2g}") for part in RATES):
            place = folder / f"{rate:g}"
            runs = dataclasses.replace(setting.runs(place, {start.name: rate}), flags=words)
            tried[start.name, rate] = run_step_of(runs.run(share, schedule, iterations, start, SEED), place)
    run_steps(list(tried.values()), setting.output / "logs/tuning", setting.jobs, setting.gpus)
    scores = {key: _score(step.result.parent) for key, step in tried.items()}
    best: dict[str, float] = {}
    for start in setting.starts:
        found = {rate: score for (name, rate), score in scores.items() if name == start.name}
        best[start.name] = max(found, key=found.get)
        told = ", ".join(f"{rate:g}: {score:.1f}" for rate, score in found.items())
        print(f"learning rate of {start.name}: {best[start.name]:g} (AP by rate {told})", flush=True)
    return best


def hold_out(data: OwnData, folder: Path) -> tuple[str, ...]:
    """Write the two parts of the labeled training images as COCO files.

    Returns:
        what fine-tuning is given to train on the one and test on the other, options first.
    """
    order = numpy_generator(SEED, "tuning").permutation(len(data.records))
    held_out = set(order[: max(1, round(HELD_OUT * len(order)))].tolist())
    folder.mkdir(parents=True, exist_ok=True)
    words = []
    for name, is_test in ((TRAIN, False), (TEST, True)):
        records = [
            {**record, "image_id": number}
            for number, record in enumerate(data.records)
            if (number in held_out) == is_test
        ]
        path = folder / f"{name}.json"
        path.write_text(json.dumps(_as_coco(records, data.train)))
        words += ["--coco", name, str(path), str(folder)]
    return (*words, "DATASETS.TRAIN", f"('{TRAIN}',)", "DATASETS.TEST", f"('{TEST}',)")


def _as_coco(records: list[dict], like: str) -> dict:
    """detectron2's conversion, which takes the name of a data set; files keep their absolute names."""
    name = "moco_det_held_out"
    DatasetCatalog.register(name, lambda: records)
    try:
        MetadataCatalog.get(name).thing_classes = list(MetadataCatalog.get(like).thing_classes)
        content = convert_to_coco_dict(name)
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    for image, record in zip(content["images"], records, strict=True):
        image["file_name"] = str(Path(record["file_name"]).absolute())
    return {**content, "info": {}}  # it tells the time


def _score(folder: Path) -> float:
    record = read_run_record(folder)
    metrics = {name: value for name, value in record["metrics"].items() if value is not None}
    metric = main_metric(record["extra"]["task"], metrics)
    return metrics[metric] if metric else 0.0
