"""Small labeled sets, and runs of the tool's function on them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from moco_det.classify.command import argument_parser, main
from moco_det.classify.settings import build_config
from moco_det.classify.trainer import ClassifierTrainer
from moco_det.engine.run_folder import prepare_run_folder

SMALL = (
    *("CLASSIFY.ARCH", "resnet18", "INPUT.VIEWS.SIZE", "32", "SOLVER.IMS_PER_BATCH", "8"),
    *("SOLVER.EPOCHS", "2", "SOLVER.LOG_PERIOD", "1", "DATALOADER.NUM_WORKERS", "0", "SEED", "1"),
)
LINEAR = ("linear_R_50_100ep", "SOLVER.BASE_LR", "0.1", "TEST.KNN.K", "3")
SUPERVISED = ("supervised_R_50_90ep", "CLASSIFY.BN_GROUP_SIZE", "4", "SOLVER.BASE_LR", "0.02")


def write_colored_set(root: Path, per_class: int) -> Path:
    """Three classes that differ in their color, with noise that does not."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for channel, name in enumerate(("red", "green", "blue")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(per_class):
                pixels = rng.integers(0, 100, (40, 40, 3))
                pixels[..., channel] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03d}.png")
    return root


def command_line(recipe: str, images, output, *words: str, weights="", flags=()) -> list[str]:
    given = ("--weights", str(weights)) if weights else ()
    return [
        *("--config-file", f"configs/ImageNet-Classification/{recipe}.yaml", "--num-gpus", "0"),
        *("--images", str(images), *given, *flags, *SMALL, "OUTPUT_DIR", str(output), *words),
    ]


def run_tool(recipe, images, output, *words, **options) -> Path:
    """The whole run; its folder."""
    main(command_line(recipe[0], images, output, *recipe[1:], *words, **options))
    return output


def make_trainer(recipe, images, output, *words, resume=False, **options) -> ClassifierTrainer:
    """The trainer of a run, before its first step."""
    args = argument_parser().parse_args(
        command_line(recipe[0], images, output, *recipe[1:], *words, **options)
    )
    cfg, start = build_config(args)
    prepare_run_folder(cfg, resume)
    trainer = ClassifierTrainer(cfg, start)
    if resume:
        trainer.resume()
    return trainer


def metrics(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())["metrics"]


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
