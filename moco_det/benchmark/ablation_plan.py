"""The runs of ablations: each point with each seed is pre-trained and then judged, and runs are never mixed."""

import functools
import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode

from moco_det.benchmark.options import check_options
from moco_det.benchmark.steps import REPOSITORY, Step
from moco_det.config import get_cfg, merge_config
from moco_det.data.shards import is_shard, shards_of
from moco_det.engine.record import COMMIT
from moco_det.engine.record import FILE_NAME as RECORD
from moco_det.model_zoo import get_config_file
from moco_det.model_zoo.ablations import ABLATIONS, CLASSIFIERS, Point

PLAN = "plan.json"
WEIGHTS = "model_final.pth"


@dataclass(frozen=True)
class AblationRun:
    """A point with a seed. Ablations that share a point share its runs.

    Attributes:
        name: of the point, see :func:`point_name`, or of random weights, see :func:`untrained_name`.
        recipe: of pre-training; empty: none, random weights are judged.
        options: KEY VALUE pairs over the point's recipe.
        fingerprint: what it is made of; a run of another one is another run.
    """

    name: str
    recipe: str
    options: tuple[str, ...]
    seed: int
    classifier: str
    fingerprint: dict[str, str]

    @property
    def folder(self) -> str:
        """Below the output; ``pretrain`` and ``classify`` are in it."""
        return f"runs/{self.name}/seed{self.seed}"


def untrained_name(scale: str) -> str:
    """The name of the runs that judge random weights, against which a point has learnt something or not."""
    return f"untrained_{Path(CLASSIFIERS[scale]).stem}"


@functools.lru_cache
def point_name(point: Point) -> str:
    """A name by what a point is made of: its recipe, and the options that say something else than the recipe.

    Points of several ablations with the same name are one and the same.
    """
    options = different_options(point.recipe, point.options)
    words = [f"{key.split('.')[-1]}={value}" for key, value in zip(options[0::2], options[1::2], strict=True)]
    return re.sub(r"[^\w.=-]+", "-", "_".join([Path(point.recipe).stem, *words]))


def different_options(recipe: str, options: Sequence[str]) -> tuple[str, ...]:
    """Those KEY VALUE pairs that change what the recipe says, sorted by key."""
    base = _resolved(recipe)
    changed = base.clone()
    changed.defrost()
    changed.merge_from_list(list(options))
    pairs = sorted(zip(options[0::2], options[1::2], strict=True))
    return tuple(word for pair in pairs if _value(base, pair[0]) != _value(changed, pair[0]) for word in pair)


def _value(cfg, key: str):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def plan_ablations(
    names: Sequence[str],
    scale: str,
    seeds: int,
    images: Path,
    classes: Path,
    options: Sequence[str] = (),
) -> list[AblationRun]:
    """Every run, and random weights as their measure, seed by seed, so that what is cut has whole curves.

    Args:
        names: of ABLATIONS.
        seeds: how many; they are 1, 2, …
        images: unlabelled images, a folder or a list file; classes: the labelled set that judges.
        options: KEY VALUE pairs for every pre-training, over those of the points.
    """
    check_options(options)
    shown = {"images": fingerprint_images(images), "classes": fingerprint_images(classes)}
    points = [point for name in names for point in ABLATIONS[name].points[scale]]
    runs = {}
    for seed in range(1, seeds + 1):
        text = _resolved(CLASSIFIERS[scale]).dump()
        fingerprint = {"recipe": _digest(text), "code": COMMIT, "classes": shown["classes"]}
        run = AblationRun(untrained_name(scale), "", (), seed, CLASSIFIERS[scale], fingerprint)
        runs[run.folder] = run
        for point in points:
            own = (*different_options(point.recipe, point.options), *options)
            classifier = CLASSIFIERS[scale]
            text = json.dumps([_resolved(point.recipe).dump(), _resolved(classifier).dump(), own])
            fingerprint = {
                "recipe": _digest(text),
                "code": COMMIT,
                **shown,
            }
            run = AblationRun(point_name(point), point.recipe, own, seed, classifier, fingerprint)
            runs.setdefault(run.folder, run)
    return list(runs.values())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@functools.lru_cache
def _resolved(recipe: str) -> CfgNode:
    """What a recipe and its bases say; not to be changed."""
    cfg = get_cfg()
    merge_config(cfg, get_config_file(recipe), [])
    cfg.freeze()
    return cfg


def fingerprint_images(images: Path) -> str:
    """12 hex digits of the names and sizes of all files in a folder or of shards, or of the text of a list file.

    Raises:
        ValueError: there is no such folder or file.
    """
    if is_shard(images.name) and not images.is_dir():
        sizes = "".join(f"{Path(shard).name} {os.path.getsize(shard)}\n" for shard in shards_of(str(images)))
        return hashlib.sha256(sizes.encode()).hexdigest()[:12]
    if images.is_file():
        return hashlib.sha256(images.read_bytes()).hexdigest()[:12]
    if not images.is_dir():
        raise ValueError(f"{images} is no folder, no shards and no list file; give --images and --classes")
    digest = hashlib.sha256()
    for where, folders, files in os.walk(images):
        folders.sort()
        for name in sorted(files):
            path = Path(where, name)
            digest.update(f"{path.relative_to(images)} {path.stat().st_size}\n".encode())
    return digest.hexdigest()[:12]


def chain_of(
    run: AblationRun, output: Path, images: Path, classes: Path, flags: Sequence[str]
) -> tuple[Step, ...]:
    """Pre-train, then judge by linear probe and kNN; then the weights go, since tens of runs would fill a disk.

    Args:
        flags: of both tools, such as ``("--num-gpus", "0")``.
    """
    folder = output / run.folder
    pretrained, judged = folder / "pretrain", folder / "classify"
    tool, seed = str(REPOSITORY / "tools") + "/", ("SEED", str(run.seed))
    knn = ("TEST.KNN.IMAGES", str(classes), *run.options, *seed, "OUTPUT_DIR", str(pretrained))
    pretrain = Step(
        f"pre-train {run.name}, seed {run.seed}",
        (tool + "pretrain_moco.py", "--config-file", f"configs/{run.recipe}.yaml", "--images", str(images))
        + ("--resume", *flags, *knn),
        pretrained / RECORD,
        alongside=True,
    )
    weights = ("--weights", str(pretrained / WEIGHTS)) if run.recipe else ()
    classify = Step(
        f"judge {run.name}, seed {run.seed}",
        (tool + "train_classifier.py", "--config-file", f"configs/{run.classifier}.yaml", *weights)
        + ("--images", str(classes), *flags, "OUTPUT_DIR", str(judged), *seed),
        judged / RECORD,
        alongside=True,
        check=WeightsRemoval(folder),
    )
    return (pretrain, classify) if run.recipe else (classify,)


@dataclass(frozen=True)
class WeightsRemoval:
    """Removes the weights and cached features below a run's folder; its records, curves and logs stay."""

    folder: Path

    def __call__(self) -> None:
        for path in self.folder.rglob("*.pth"):
            path.unlink()
        shutil.rmtree(self.folder / "classify/features", ignore_errors=True)
        for path in self.folder.rglob("last_checkpoint"):
            path.unlink()
