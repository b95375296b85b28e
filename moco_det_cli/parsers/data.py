"""Options of the commands that make, measure and check images and data sets."""

import argparse
import os

from moco_det_cli.cores import usable_cores
from moco_det_cli.parsers.choices import PACKED, PERCENTILES, TASKS, TOYWORLD
from moco_det_cli.parsers.stages import add_dataset_options
from moco_det_cli.places import datasets_root


def check_datasets_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Options of ``check-datasets``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Says which data sets below $DETECTRON2_DATASETS are complete, and where to get what is not.",
        epilog="exit code: 0 all are complete (with or without warnings), 1 one is not, or --leaks-in found some, "
        "2 the command is wrong",
    )
    names = ", ".join(TASKS)
    parser.add_argument(
        "--tasks", nargs="+", default=[], metavar="NAME", help=f"all (the default), or of: {names}"
    )
    parser.add_argument(
        "--datasets", nargs="+", default=[], metavar="NAME", help="registered names, e.g. toy_coco_val"
    )
    parser.add_argument(
        "--config-file", metavar="RECIPE", help="check the data sets of a run, for what it does with them"
    )
    add_dataset_options(parser)
    parser.add_argument(
        "--leaks-in",
        nargs="+",
        default=[],
        metavar="IMAGES|NAME",
        help="which images there (as --images of pre-training takes them, or of a data set) show what those of "
        "--datasets show, by their content",
    )
    parser.add_argument("--leaks-list", default="", metavar="FILE", help="write them there, for --exclude")
    parser.add_argument("--json", metavar="FILE", help="also write what was found there, for scripts")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="as for the run, after --")
    return parser


def stats_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Options of ``stats``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Mean and std of images, each of which weighs the same, as an overlay for pre-training.",
    )
    parser.add_argument(
        "--images",
        required=True,
        help="a folder of images (any depth) or of tar shards, a pattern of shards such as "
        "train-{000000..000147}.tar, or a text file of paths",
    )
    parser.add_argument("--channels", type=int, default=3, help="of the images, 1 to 16 (default: 3)")
    parser.add_argument(
        "--range",
        nargs="+",
        metavar="X",
        help="the values that become 0 and 255: two numbers for all channels, two for each, or 'measured': the "
        f"{PERCENTILES[0]:g} and {PERCENTILES[1]:g} percentiles of each (default: 0 255 for 8 bits, 0 65535 "
        "for 16)",
    )
    parser.add_argument(
        "--format",
        choices=("RGB", "L"),
        help="L: the first three channels are no red, green and blue (default: RGB, below three channels L)",
    )
    parser.add_argument("--num-images", type=int, help="measure a random sample of so many (default: all)")
    parser.add_argument(
        "--num-workers", type=int, default=min(4, usable_cores()), help="processes that read (0: none)"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="where to write, ending in .yaml")
    return parser


def split_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Options of ``split``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Split a label file in COCO's format, as labeling tools export it, into train.json and "
        "test.json.",
    )
    add = parser.add_argument
    add("--coco", required=True, metavar="JSON", help="the label file")
    add("--output", required=True, metavar="DIR", help="folder of the two files; may not hold them yet")
    add(
        "--images",
        default="",
        metavar="DIR",
        help="folder of the images; file names are made to fit it, where a tool wrote other folders before them",
    )
    add("--test", type=float, default=0.2, metavar="FRACTION", help="of the images (default: 0.2)")
    add("--seed", type=int, default=0, help="another number is another split (default: 0)")
    add(
        "--group",
        default="",
        metavar="REGEX",
        help="images in whose file names this matches the same text stay on one side, such as the frames of a "
        "video: '^(.*)_\\d+' for clip1_0001.jpg, '^[^/]+' for a folder each (default: each image alone)",
    )
    return parser


def pack_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Options of ``pack``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Make a packed copy of images: small JPEGs in tar shards, which --images takes like a folder.",
    )
    add = parser.add_argument
    add(
        "--images",
        help="a folder of images (any depth) or of tar shards, a pattern of shards, or a list file",
    )
    add(
        "--datasets",
        nargs="+",
        default=[],
        metavar="NAME",
        help="instead: registered data sets, e.g. coco_2017_train",
    )
    add("--output", required=True, metavar="DIR", help="folder of the shards; must not exist")
    add(
        "--shorter-side",
        type=int,
        default=PACKED["shorter_side"],
        metavar="PX",
        help="of larger images; 0: keep sizes",
    )
    add("--quality", type=int, default=PACKED["quality"], help="of the JPEGs, 1 to 100")
    add("--shard-mib", type=int, default=PACKED["shard_mib"], metavar="MIB", help="size of a shard")
    add("--num-workers", type=int, default=usable_cores(), help="processes that read and shrink (0: none)")
    add(
        "--dry-run",
        action="store_true",
        help="print what it will be and how much disk it needs; write nothing",
    )
    return parser


def toyworld_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Options of ``toyworld``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Render the toy world: unlabeled images, class folders, PASCAL VOC, COCO and Cityscapes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    output = os.path.join(datasets_root(), "toyworld")
    parser.add_argument("--output", default=output, help="folder to make")
    for name, text in (
        ("seed", "seed of everything that is random"),
        ("image_size", "side of every image, in pixels"),
        ("num_unlabeled", "unlabeled images"),
        ("num_per_class_train", "training images in each class folder"),
        ("num_per_class_test", "test images in each class folder"),
        ("num_train", "detection scenes for training"),
        ("num_test", "detection scenes for testing"),
    ):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=TOYWORLD[name], help=text)
    # as it was spelled before version 7
    parser.add_argument(
        "--num-unlabelled", type=int, dest="num_unlabeled", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    parser.add_argument("--cutouts", help="{train,test}/<class>/*.png with alpha, instead of drawn shapes")
    parser.add_argument("--backgrounds", help="{train,test}/*.jpg, goes with --cutouts")
    return parser
