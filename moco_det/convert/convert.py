"""``tools/convert_to_d2.py IN OUT``: a checkpoint becomes backbone.pkl and its overlay, proven or not written."""

import argparse
import dataclasses
import os
from pathlib import Path

from moco_det.backbone_file import Preprocessing, file_sha256, write_backbone
from moco_det.backbone_tensors import check_backbone
from moco_det.cli import user_errors
from moco_det.convert.rename import to_detectron2
from moco_det.convert.verify import TOLERANCE, prove_equal_features
from moco_det.files import appears_whole
from moco_det.overlay_file import PREPROCESSING_KEYS, check_replaceable, overlay_text
from moco_det.sources import agreed_arch, locate_backbone, read_checkpoint

TITLE = "Init overlay written by tools/convert_to_d2.py"


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What was done.

    Attributes:
        kept: torchvision's names -> detectron2's names.
        dropped: reason -> names in the source.
        bookkeeping: the source's entries that are no tensors.
        notes: what else a reader should know.
        differences: stage -> largest relative difference of its features.
        output: where the weights went.
        overlay: where their init overlay went.
        provenance: as written into the file.
    """

    kept: dict[str, str]
    dropped: dict[str, list[str]]
    bookkeeping: list[str]
    notes: list[str]
    differences: dict[str, float]
    output: Path
    overlay: Path
    provenance: dict[str, str]

    def summary(self) -> str:
        """The table for the terminal."""
        origin = self.provenance
        which = f", {origin['encoder']} encoder" if origin["encoder"] else ""
        rows = [("source", f"{origin['file']} ({origin['source']}{which}, {origin['arch']})")]
        rows.append(("kept", f"{len(self.kept)} tensors, renamed for detectron2"))
        rows += [
            ("dropped", f"{len(names)} {reason}: {_few(names)}") for reason, names in self.dropped.items()
        ]
        if self.bookkeeping:
            rows.append(("dropped", f"entries that are no weights: {', '.join(self.bookkeeping)}"))
        rows += [("note", note) for note in self.notes]
        largest = ", ".join(f"{stage} {value:.1e}" for stage, value in self.differences.items())
        rows.append(("proof", f"features differ by {largest} (float64, relative; limit {TOLERANCE:.0e})"))
        rows.append(("written", f"{self.output} ({self.output.stat().st_size / 1e6:.1f} MB)"))
        rows.append(
            ("", f"{self.overlay}; next: tools/train_net.py --config-file RECIPE --init {self.overlay}")
        )
        return "\n".join(f"{label:8} {text}" for label, text in rows)


def convert(
    source: str | os.PathLike, output: str | os.PathLike, encoder: str = "query", trust_pickle: bool = False
) -> Conversion:
    """Convert a checkpoint to backbone.pkl, and write the init overlay backbone.yaml beside it.

    Neither appears unless every check passed.

    Args:
        source: a checkpoint of a family in ``sources.py``.
        output: where to, ending in ``.pkl``, in a folder that exists.
        encoder: ``"query"`` or ``"key"``, where the source has both.
        trust_pickle: allow the source to run code while it is read.

    Raises:
        ValueError: a path, the source or one of its tensors is not as it must be.
        OSError: a file cannot be read or written.
    """
    source, output = Path(source), Path(output)
    _check_paths(source, output)
    overlay = output.with_suffix(".yaml")
    check_replaceable(overlay, TITLE)
    found = locate_backbone(read_checkpoint(source, trust_pickle), encoder)
    arch = agreed_arch(found)
    tensors, notes = check_backbone(found.backbone, arch)
    kept = {name: to_detectron2(name) for name in tensors}
    provenance = {
        "source": found.family,
        "file": source.name,
        "sha256": file_sha256(source),
        "encoder": found.encoder,
        "arch": arch,
        "config": found.record.config,
    }
    differences = {}
    with appears_whole(overlay) as temporary:
        temporary.write_text(_overlay_of(output, found.record.preprocessing), encoding="utf-8")
        write_backbone(
            output,
            {kept[name]: tensor.numpy() for name, tensor in tensors.items()},
            found.record.preprocessing,
            provenance,
            check=lambda written: differences.update(prove_equal_features(written, tensors, arch)),
        )
    return Conversion(kept, found.dropped, found.bookkeeping, notes, differences, output, overlay, provenance)


def _overlay_of(output: Path, preprocessing: Preprocessing) -> str:
    """The init overlay's text: the weights by their name alone, so that the two files can move together."""
    values = {PREPROCESSING_KEYS[field]: value for field, value in preprocessing.to_dict().items()}
    use = f"Use: tools/train_net.py --config-file RECIPE --init {output.stem}.yaml. Keep it beside {output.name}."
    return overlay_text(TITLE, (use,), {"MODEL.WEIGHTS": output.name, **values})


def _check_paths(source: Path, output: Path) -> None:
    if not source.is_file():
        raise ValueError(f"source {str(source)!r} is no file (looked in {os.getcwd()!r})")
    if output.suffix != ".pkl":
        raise ValueError(
            f"output {str(output)!r} must end in '.pkl': detectron2 takes the ending for the kind of file"
        )
    if not output.parent.is_dir():
        raise ValueError(f"the folder of output {str(output)!r} does not exist; make it first")
    if output.exists() and output.samefile(source):
        raise ValueError(
            f"source and output are the same file, {str(source)!r}; give the output another name"
        )


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@user_errors
def main(argv: list[str] | None = None) -> None:
    """Entry of ``tools/convert_to_d2.py``."""
    parser = argparse.ArgumentParser(
        description="Convert a checkpoint to detectron2's backbone.pkl and its init overlay, with proof."
    )
    parser.add_argument("source", metavar="IN", help="moco_det, official MoCo or torchvision checkpoint")
    parser.add_argument(
        "output",
        metavar="OUT",
        help="where to write, ending in .pkl, in a folder that exists; the overlay goes beside it, as .yaml",
    )
    parser.add_argument(
        "--encoder", choices=("query", "key"), default="query", help="which one (default: query)"
    )
    parser.add_argument(
        "--trust-pickle",
        action="store_true",
        help="let IN run code while it is read; only for files whose origin you trust",
    )
    args = parser.parse_args(argv)
    print(convert(args.source, args.output, args.encoder, args.trust_pickle).summary())
