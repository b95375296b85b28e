"""The command line of ``tools/convert_to_d2.py``."""

import argparse
import json
import math
from pathlib import Path

from moco_det.convert.convert import convert
from moco_det.convert.official import OFFICIAL
from moco_det.convert.targets import TARGETS
from moco_det.utils.errors import user_errors
from moco_det.utils.files import atomic_write
from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING, Preprocessing
from moco_det.weights.sources import FAMILIES
from moco_det.weights.sources.families import PREPROCESSINGS


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Convert a checkpoint to detectron2's backbone.pkl and its init overlay, or to another "
        "library's weights, with proof. docs/CONVERTING.md lists what is read.",
    )
    parser.add_argument(
        "source", metavar="IN", help=f"a checkpoint, a folder with one, or a name: {', '.join(OFFICIAL)}"
    )
    endings = "; ".join(f"{name}: {' '.join(kind.endings)}" for name, kind in TARGETS.items())
    parser.add_argument(
        "output",
        metavar="OUT",
        help=f"where to write, in a folder that exists; its ending by --to: {endings}",
    )
    parser.add_argument(
        "--to", choices=TARGETS, default="detectron2", help="who will load it (default: detectron2)"
    )
    parser.add_argument(
        "--encoder",
        choices=("query", "key"),
        help="which of two: query, the trained one, or key, its moving average (target, teacher); default: query, "
        "for DINO key",
    )
    parser.add_argument(
        "--family",
        choices=[family.name for family in FAMILIES],
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


def _check_report(path: Path, args: argparse.Namespace) -> None:
    """Refuse, before any work, a place for ``--json`` that cannot be or that is one of the other files."""
    if not path.parent.is_dir():
        raise ValueError(f"the folder of --json {str(path)!r} does not exist; make it first")
    overlay = args.emit_init or Path(args.output).with_suffix(".yaml")
    if path.resolve() in {Path(other).resolve() for other in (args.source, args.output, overlay)}:
        raise ValueError(f"--json {str(path)!r} is one of the other files; give it a name of its own")


def _given_preprocessing(args: argparse.Namespace) -> Preprocessing | None:
    """What the flags say of the input, or None."""
    given = PREPROCESSINGS.get(args.preprocessing)
    mean, std = args.pixel_mean, args.pixel_std
    if (mean is None) != (std is None):
        raise ValueError("give --pixel-mean and --pixel-std together, one value per channel each")
    if mean is None:
        if args.pixel_range or args.format:
            raise ValueError(
                "--pixel-range and --format go with --pixel-mean and --pixel-std; give these too"
            )
        return given
    if not all(math.isfinite(value) for value in mean + std) or min(std) <= 0:
        raise ValueError(f"--pixel-mean {mean} and --pixel-std {std}; expected numbers, std above 0")
    fitting = (given or TORCHVISION_PREPROCESSING).for_channels(len(mean))
    more = {"range": args.pixel_range or [], "format": args.format or fitting.format}
    return Preprocessing.from_dict({**fitting.to_dict(), "pixel_mean": mean, "pixel_std": std, **more})


@user_errors
def main(argv: list[str] | None = None) -> None:
    """Entry of ``tools/convert_to_d2.py``."""
    args = make_parser().parse_args(argv)
    if args.json:
        _check_report(Path(args.json), args)
    if not 0 <= args.channels <= 16:
        raise ValueError(f"--channels is {args.channels}; expected 1 to 16")
    conversion = convert(
        args.source,
        args.output,
        args.encoder,
        args.trust_pickle,
        family=args.family,
        prefix=args.prefix,
        preprocessing=_given_preprocessing(args),
        channels=args.channels,
        channel_rule=args.channels_by,
        target=args.to,
        overlay=args.emit_init,
    )
    if args.json:
        with atomic_write(args.json) as temporary:
            temporary.write_text(json.dumps(conversion.to_dict(), indent=1), encoding="utf-8")
    if args.names:
        print("\n".join(f"{old} -> {new}" for old, new in conversion.renamed.items()))
    print(conversion.summary())
