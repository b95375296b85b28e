"""The command line of ``tools/convert_to_d2.py``."""

import argparse
import json
import math
from pathlib import Path

from moco_det.convert.convert import convert
from moco_det.utils.errors import user_errors
from moco_det.utils.files import atomic_write
from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING, Preprocessing
from moco_det.weights.sources.families import PREPROCESSINGS
from moco_det_cli.parsers.weights import convert_parser


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
    args = convert_parser().parse_args(argv)
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
