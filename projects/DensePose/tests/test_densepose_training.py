"""The way from toy bodies to a GPS AP through the trainer, and what is refused before it starts."""

import json
import logging

import pytest
from detectron2.data import MetadataCatalog

from moco_densepose import add_densepose_config, register_densepose_datasets
from moco_densepose.datasets import COCO_SYMMETRY, COCO_TABLES, TABLES
from moco_det.config import get_cfg
from moco_det.finetune.command import make_parser, run
from moco_det.finetune.datasets import check_datasets
from moco_det.finetune.evaluators import check_evaluator
from moco_det.model_zoo.tasks import get_task

SMALL = (
    *(
        "SOLVER.MAX_ITER",
        "2",
        "SOLVER.IMS_PER_BATCH",
        "2",
        "SOLVER.STEPS",
        "()",
        "TEST.PRECISE_BN.NUM_ITER",
        "1",
    ),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64", "SEED", "1"),
)


@pytest.fixture(autouse=True)
def loggers_as_before():
    """A run points the loggers at its folder; undo it."""
    loggers = [logging.getLogger(name) for name in ("moco_det", "detectron2", "fvcore")]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, state in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate, level = state
        logger.setLevel(level)


def test_training_and_evaluation_run(toy_root, tmp_path):
    args = ["--config-file", get_task("coco-densepose").toy, "--init", "random", "--num-gpus", "0"]
    run(
        make_parser().parse_args([*args, *SMALL, "OUTPUT_DIR", str(tmp_path)]),
        add_configs=[add_densepose_config],
    )
    record = json.loads((tmp_path / "run.json").read_text())
    assert {"bbox/AP", "densepose_gps/AP", "densepose_gps/AP50", "densepose_gps/APm"} <= set(
        record["metrics"]
    )
    assert set(get_task("coco-densepose").metrics) <= set(record["metrics"])
    assert record["extra"]["task"] == "toy/densepose_rcnn_R_18_FPN"
    lines = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert any(
        f"loss_densepose_{name}" in lines[-1] or f"loss_densepose_{name}" in lines[0] for name in "UVIS"
    )


def test_missing_files_are_named_with_where_they_come_from(tmp_path):
    cfg = get_cfg()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    register_densepose_datasets(str(tmp_path))
    try:
        with pytest.raises(ValueError, match="densepose_train.json.*make_toy_bodies.py"):
            check_datasets(cfg, ("moco_densepose_toy_train",))
        name = "moco_densepose_coco_2014_minival"
        metadata = MetadataCatalog.get(name)
        with pytest.raises(
            ValueError, match="fetch it from https://.*/annotations/coco/densepose_minival2014.json"
        ):
            check_datasets(cfg, (name,))
        (tmp_path / "coco/annotations").mkdir(parents=True)
        (tmp_path / "coco/val2014").mkdir()
        (tmp_path / "coco/annotations/densepose_minival2014.json").touch()
        with pytest.raises(ValueError, match=f"fetch it from https://.*/data/{COCO_TABLES[0]}"):
            check_datasets(cfg, (name,))
        assert metadata.symmetry == str(tmp_path / TABLES / COCO_SYMMETRY)
    finally:
        register_densepose_datasets()


def test_the_task_says_what_its_recipes_do():
    from moco_det.config import merge_config
    from moco_det.model_zoo import get_config_file, recipe_name

    task = get_task("coco-densepose")
    for recipe in task.recipes:
        cfg = get_cfg()
        add_densepose_config(cfg)
        merge_config(cfg, get_config_file(recipe), [])
        assert recipe_name(get_config_file(recipe)) == recipe
        assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (task.train, task.test)
        assert {result.iterations for result in task.printed} == {cfg.SOLVER.MAX_ITER}
    for name in task.test:
        assert MetadataCatalog.get(name).evaluator_type == task.evaluator
        check_evaluator(name)
