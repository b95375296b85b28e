"""Options of the commands that read weight files."""

import argparse

from moco_det_cli.parsers.choices import FAMILIES, OFFICIAL, PREPROCESSINGS, TARGET_ENDINGS


def convert_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Options of ``convert``."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Convert a checkpoint to detectron2's backbone.pkl and its init overlay, or to another "
        "library's weights, with proof. docs/CONVERTING.md lists what is read.",
    )
    parser.add_argument(
        "source", metavar="IN", help=f"a checkpoint, a folder with one, or a name: {', '.join(OFFICIAL)}"
    )
    every = "; ".join(f"{name}: {' '.join(endings)}" for name, endings in TARGET_ENDINGS.items())
    parser.add_argument(
        "output",
        metavar="OUT",
        help=f"where to write, in a folder that exists; its ending by --to: {every}",
    )
    parser.add_argument(
        "--to", choices=TARGET_ENDINGS, default="detectron2", help="who will load it (default: detectron2)"
    )
    parser.add_argument(
        "--encoder",
        choices=("query", "key"),
        help="which of two: query, the trained one, or key, its moving average (target, teacher); default: query, "
        "for DINO key",
    )
    parser.add_argument(
        "--family",
        choices=FAMILIES,
        metavar="NAME",
        help="what IN is, where its content could be of several families",
    )
    parser.add_argument(
        "--prefix", help="look only at the tensors whose names begin so, where IN holds several networks"
    )
    parser.add_argument(
        "--preprocessing",
        choices=PREPROCESSINGS,
        help="how the weights want their input, in place of what IN or its family says",
    )
    for name in ("mean", "std"):
        parser.add_argument(
            f"--pixel-{name}",
            nargs="+",
            type=float,
            metavar="X",
            help=f"the {name} of each channel in the units of the images (8 bits: 0 to 255), in place of "
            "--preprocessing's",
        )
    parser.add_argument(
        "--pixel-range",
        nargs="+",
        type=float,
        metavar="X",
        help="INPUT.RANGE of the images, with --pixel-mean: the values that become 0 and 255, for all "
        "channels or each",
    )
    parser.add_argument(
        "--format",
        choices=("RGB", "BGR", "L"),
        help="INPUT.FORMAT of the images, with --pixel-mean; L: their first three channels are no colors",
    )
    parser.add_argument(
        "--channels",
        type=int,
        default=0,
        metavar="N",
        help="write weights for images of N channels, 1 to 16, whatever IN is for",
    )
    parser.add_argument(
        "--channels-by",
        choices=("repeat", "mean"),
        default="repeat",
        help="how: the filters of IN's channels in turn, or the mean of all for each; then rescaled "
        "(default: repeat)",
    )
    parser.add_argument(
        "--emit-init", metavar="YAML", help="where the init overlay goes (default: beside OUT)"
    )
    parser.add_argument("--json", metavar="FILE", help="write what was done to FILE, for scripts")
    parser.add_argument("--names", action="store_true", help="print each tensor's old and new name too")
    parser.add_argument(
        "--trust-pickle",
        action="store_true",
        help="let IN run code while it is read; only for files whose origin you trust",
    )
    return parser


def inspect_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """Options of ``inspect``."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Say what a weight file is, and whether it can be converted."
    )
    parser.add_argument("file", metavar="FILE", help="a checkpoint, or a folder with one")
    parser.add_argument("--encoder", choices=("query", "key"), help="which of two to look at")
    parser.add_argument("--family", choices=FAMILIES, metavar="NAME", help="what FILE is")
    parser.add_argument("--prefix", help="look only at the tensors whose names begin so")
    parser.add_argument("--preprocessing", choices=PREPROCESSINGS, help="how the weights want their input")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--json", metavar="OUT", help="write the facts to OUT too")
    parser.add_argument("--trust-pickle", action="store_true", help="let FILE run code while it is read")
    return parser
