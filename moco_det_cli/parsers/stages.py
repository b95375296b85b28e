"""Options of the stages that train, and those that name data sets of the user's own."""

import argparse
import os

from moco_det_cli.parsers.choices import DATASET_OPTIONS

DRY_RUN = "check everything, print what the run will be, write nothing"
# A port for each user of a machine, as detectron2 chooses it.
DIST_URL = f"tcp://127.0.0.1:{49152 + (os.getuid() if hasattr(os, 'getuid') else 1) % 2**14}"
_DATASET_HELP = {
    "coco": "a set in COCO's format (boxes, masks, keypoints): a label file and the folder of its images",
    "voc": "a set in VOC's layout: FOLDER holds Annotations, JPEGImages, ImageSets/Main/SPLIT.txt, and may hold "
    "classes.txt, one name a line (else the names in Annotations count, sorted)",
    "semantic": "label images (a number for each pixel, 255: none) of the same names as the images; CLASSES: "
    "names in the order of their numbers, 'background,cat' or a text file with one per line",
}


def stage_parser(
    prog: str | None,
    description: str,
    example: str,
    dry_run: str = DRY_RUN,
    eval_only: str = argparse.SUPPRESS,
) -> argparse.ArgumentParser:
    """Make a parser of detectron2's options and ``--dry-run``, with help that speaks of this package.

    Without ``--num-gpus`` a run takes one GPU where there is one, else the CPU.

    Args:
        dry_run: the help of that option.
        eval_only: the help of that option, which a stage without one takes only to refuse it.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description=description,
        epilog=f"Example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # keeps the example on one line, to be copied
    )
    add = parser.add_argument
    add("--config-file", default="", metavar="FILE", help="a recipe: a name below configs/ or a YAML file")
    add(
        "--resume",
        action="store_true",
        help="continue from the newest checkpoint in OUTPUT_DIR, if there is one",
    )
    add("--eval-only", action="store_true", help=eval_only)
    add("--num-gpus", type=int, help="GPUs of each machine; 0: the CPU; default: one where there is one")
    add("--num-machines", type=int, default=1, help="machines of the run; default: 1")
    add("--machine-rank", type=int, default=0, help="number of this machine, from 0 on; default: 0")
    add(
        "--dist-url",
        default=DIST_URL,
        help="where processes meet: tcp://FIRST_MACHINE:PORT; default: this machine",
    )
    add("--dry-run", action="store_true", help=dry_run)
    add(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config keys and their values, over the recipe, at the end of the command (docs/CONFIG.md)",
    )
    return parser


def add_dataset_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name data sets of the user's own."""
    group = parser.add_argument_group("data sets of your own (each option may be given several times)")
    for option, words in DATASET_OPTIONS.items():
        group.add_argument(
            f"--{option}",
            nargs=len(words),
            action="append",
            default=[],
            metavar=words,
            help=_DATASET_HELP[option],
        )
    group.add_argument(
        "--register",
        action="append",
        default=[],
        metavar="FILE.py|MODULE",
        help="run this first; it registers data sets as detectron2 documents",
    )


def pretrain_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Options of ``pretrain``: those of a stage, and its own."""
    parser = stage_parser(
        prog,
        "Pre-train a ResNet on unlabeled images, with MoCo or another method.",
        "tools/pretrain_moco.py --config-file configs/Pretrain/moco_v2_R_50_200ep.yaml --images DIR --num-gpus 8 "
        "OUTPUT_DIR output/pretrain",
        dry_run="the plan without its trial: check everything, print what the run will be, write nothing",
    )
    parser.add_argument(
        "--images",
        default="",
        help="a folder of images (any depth) or of tar shards, a pattern of shards such as "
        "train-{000000..000147}.tar, or a text file of paths",
    )
    parser.add_argument(
        "--exclude",
        default="",
        metavar="FILE",
        help="a text file of paths that are left out (tools/check_datasets.py --leaks-list writes one)",
    )
    parser.add_argument(
        "--overlay",
        default="",
        metavar="FILE",
        help="a YAML file merged over the recipe, below the KEY VALUE pairs (tools/compute_stats.py writes one)",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print what the run will be, after a short trial, with advice; nothing is written",
    )
    add_dataset_options(parser)
    return parser


def classify_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Options of ``classify``: those of a stage, and its own."""
    parser = stage_parser(
        prog,
        "Evaluate features by a linear classifier and kNN, or train a whole network.",
        "tools/train_classifier.py --config-file configs/ImageNet-Classification/linear_R_50_100ep.yaml --weights "
        "output/backbone.pkl --images DIR --num-gpus 8 OUTPUT_DIR output/linear",
    )
    parser.add_argument(
        "--images", default="", help="a folder with train/<class>/ and val/<class>/ (or test/<class>/)"
    )
    parser.add_argument(
        "--weights",
        default="",
        metavar="FILE",
        help="what the encoder starts from: a checkpoint of pre-training, backbone.pkl, or any other file that "
        "tools/convert_to_d2.py reads; without it, random weights",
    )
    return parser


def train_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Options of ``train``: those of a stage, and its own."""
    parser = stage_parser(
        prog,
        "Fine-tune a detector or segmenter, or evaluate one.",
        "tools/train_net.py --config-file configs/PascalVOC-Detection/faster_rcnn_R_50_C4_24k.yaml --init "
        "output/backbone.pkl --num-gpus 8 OUTPUT_DIR output/voc",
        eval_only="measure the detector of MODEL.WEIGHTS, without training",
    )
    parser.add_argument(
        "--init",
        metavar="NAME|FILE",
        help="how the backbone starts: an overlay of configs/init (random, supervised_msra, "
        "supervised_torchvision, moco), a YAML file, or the backbone.pkl that convert wrote; merged over the "
        "recipe, below the KEY VALUE pairs",
    )
    add_dataset_options(parser)
    return parser
