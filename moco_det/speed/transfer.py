"""Fine-tuning's step next to detectron2's own, and COCO's evaluation next to pycocotools."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from detectron2.engine import DefaultTrainer
from detectron2.utils.events import EventStorage
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from moco_det.data.datasets.toy import register_toy_datasets
from moco_det.finetune.coco_evaluator import count_matches
from moco_det.finetune.trainer import Trainer
from moco_det.model_zoo import get_config
from moco_det.speed.clock import alternate
from moco_det.speed.measurement import Measurement, times
from moco_det.speed.options import Options
from moco_det.toyworld.make import make_toyworld

CATEGORIES, TRUTHS, DETECTIONS = 80, 7, 40  # an image of COCO val2017 has 7 objects; a detector finds dozens
# The two do the same work, so the ratio is 1 but for what disturbs a measurement.
NEVER_SLOWER = (">=", 0.98)


def measure_finetune(options: Options) -> Iterator[Measurement]:
    """A training step with its loader: our trainer and detectron2's DefaultTrainer on the same config."""
    with tempfile.TemporaryDirectory() as folder, _silent(), _toy_world(Path(folder, "toyworld")):
        for name in options.detectors:
            plain = _config(name, options, folder)
            with _running(DefaultTrainer, plain) as reference, _running(Trainer, plain) as ours:
                pair = alternate(
                    reference, ours, rounds=options.rounds, seconds=options.seconds, device=options.device
                )
            what = f"fine-tuning step, {name}, {plain.SOLVER.IMS_PER_BATCH} images"
            yield times("finetune", what, "detectron2's DefaultTrainer", pair, target=NEVER_SLOWER)
            if options.cuda:
                mixed = _config(name, options, folder, amp=True)
                with _running(Trainer, plain) as reference, _running(Trainer, mixed) as ours:
                    pair = alternate(
                        reference, ours, rounds=options.rounds, seconds=options.seconds, device=options.device
                    )
                yield times("finetune", f"{what}, AMP", "the same in float32", pair, target=(">=", 1.3))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """detectron2 logs each model that it builds."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _toy_world(root: Path) -> Iterator[None]:
    """The toy data sets are those of a small world of its own, and afterwards what they were."""
    make_toyworld(
        root, num_unlabeled=1, num_per_class_train=1, num_per_class_test=1, num_train=24, num_test=12
    )
    register_toy_datasets(str(root))
    try:
        yield
    finally:
        register_toy_datasets()


def _config(name: str, options: Options, folder: str, amp: bool = False):
    cfg = get_config(name, init="random")
    cfg.MODEL.DEVICE, cfg.OUTPUT_DIR, cfg.SEED = options.device, folder, 1
    cfg.SOLVER.AMP.ENABLED = amp
    cfg.freeze()
    return cfg


@contextlib.contextmanager
def _running(trainer_class: type[DefaultTrainer], cfg) -> Iterator[Callable[[], None]]:
    """A step of a trainer without its hooks."""
    trainer = trainer_class(cfg)
    trainer.iter = 0
    with EventStorage(0):
        yield trainer.run_step


def coco_case(num_images: int, seed: int = 0) -> tuple[dict, list[dict]]:
    """Ground truth of a COCO file, and detections: some near an object, most not."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image in range(num_images):
        boxes = np.concatenate([rng.uniform(0, 400, (TRUTHS, 2)), rng.uniform(10, 200, (TRUTHS, 2))], axis=1)
        categories = rng.integers(1, CATEGORIES + 1, TRUTHS)
        for box, category in zip(boxes, categories, strict=True):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": int(category)}
                | {"bbox": box.tolist(), "area": float(box[2] * box[3]), "iscrowd": 0}
            )
        near = rng.integers(TRUTHS, size=DETECTIONS)
        found = boxes[near] + rng.normal(0, 8, (DETECTIONS, 4))
        found[:, 2:] = found[:, 2:].clip(2)
        right = rng.random(DETECTIONS) < 0.5
        labels = np.where(right, categories[near], rng.integers(1, CATEGORIES + 1, DETECTIONS))
        for box, label, score in zip(found, labels, rng.random(DETECTIONS), strict=True):
            results.append(
                {"image_id": image, "category_id": int(label), "bbox": box.tolist(), "score": score}
            )
    truth = {
        "images": [{"id": image, "width": 640, "height": 640} for image in range(num_images)],
        "categories": [{"id": category, "name": str(category)} for category in range(1, CATEGORIES + 1)],
        "annotations": annotations,
    }
    return truth, results


def by_pycocotools(truth: dict, results: list[dict]) -> np.ndarray:
    """The twelve numbers of COCO's box evaluation."""
    ground = COCO()
    ground.dataset = truth | {"annotations": [dict(annotation) for annotation in truth["annotations"]]}
    ground.createIndex()
    evaluation = COCOeval(ground, ground.loadRes([dict(result) for result in results]), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats


def measure_eval(options: Options) -> Iterator[Measurement]:
    """COCO's box AP of the same detections by both evaluators."""
    truth, results = coco_case(options.coco_images)
    with contextlib.redirect_stdout(io.StringIO()):
        ours, theirs = count_matches(truth, results, "bbox").stats, by_pycocotools(truth, results)
        if np.abs(np.asarray(ours[:12]) - theirs).max() > 1e-9:
            raise ValueError(f"the evaluators disagree: {theirs} and {ours}")
        pair = alternate(
            lambda: by_pycocotools(truth, results) is None or None,
            lambda: count_matches(truth, results, "bbox") is None or None,
            rounds=options.rounds,
            seconds=0,
            device="cpu",
        )
    what = f"COCO box evaluation, {options.coco_images} images, {len(results)} detections"
    yield times("eval", what, "pycocotools", pair, target=(">=", 5.0))
