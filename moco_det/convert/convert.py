"""``tools/convert_to_d2.py IN OUT``: a checkpoint becomes a weight file and its overlay, proven or not written."""

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

from moco_det.config.overlays import check_replaceable, init_values, overlay_text
from moco_det.convert.official import OFFICIAL, fetch
from moco_det.convert.targets import TARGETS, check_target, records_preprocessing, write_target
from moco_det.convert.verify import TOLERANCE, prove_equal_features
from moco_det.utils.files import atomic_write
from moco_det.utils.progress import Progress
from moco_det.weights.backbone_file import TORCHVISION_PREPROCESSING, Preprocessing, file_sha256
from moco_det.weights.backbone_tensors import check_backbone, in_channels
from moco_det.weights.resnet_names import to_detectron2
from moco_det.weights.sources import (
    Source,
    agreed_arch,
    agreed_preprocessing,
    for_channels,
    locate_backbone,
    preprocessing_notes,
    read_checkpoint,
    weight_file,
)

TITLE = "Init overlay written by tools/convert_to_d2.py"


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What was done.

    Attributes:
        kept: torchvision's names -> the written names.
        renamed: names in the source (without wrappers) -> the written names.
        dropped: reason -> names in the source.
        bookkeeping: the source's entries that are no tensors.
        notes: what else a reader should know.
        differences: stage -> largest relative difference of its features.
        target: the library that the file is for.
        output: where the weights went.
        overlay: where their init overlay went; None where the target is not detectron2.
        provenance: as written into the file.
        preprocessing: how the weights want their input.
    """

    kept: dict[str, str]
    renamed: dict[str, str]
    dropped: dict[str, list[str]]
    bookkeeping: list[str]
    notes: list[str]
    differences: dict[str, float]
    target: str
    output: Path
    overlay: Path | None
    provenance: dict[str, str]
    preprocessing: Preprocessing

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for ``--json``."""
        values = dataclasses.asdict(self)
        values["preprocessing"] = self.preprocessing.to_dict()
        values["output"], values["overlay"] = str(self.output), self.overlay and str(self.overlay)
        return {**values, "tolerance": TOLERANCE, "output_sha256": file_sha256(self.output)}

    def summary(self) -> str:
        """The table for the terminal."""
        origin = self.provenance
        which = f", {origin['encoder']} encoder" if origin["encoder"] else ""
        rows = [("source", f"{origin['file']} ({origin['source']}{which}, {origin['arch']})")]
        rows.append(("kept", f"{len(self.kept)} tensors, renamed for {self.target}"))
        rows += [
            ("dropped", f"{len(names)} {reason}: {_few(names)}") for reason, names in self.dropped.items()
        ]
        if self.bookkeeping:
            rows.append(("dropped", f"entries that are no weights: {', '.join(self.bookkeeping)}"))
        rows.append(("input", self.preprocessing.in_words()))
        rows += [("note", note) for note in self.notes]
        largest = ", ".join(f"{stage} {value:.1e}" for stage, value in self.differences.items())
        rows.append(("proof", f"features differ by {largest} (float64, relative; limit {TOLERANCE:.0e})"))
        rows.append(("written", f"{self.output} ({self.output.stat().st_size / 1e6:.1f} MB)"))
        if self.overlay:
            rows.append(
                ("", f"{self.overlay}; next: tools/train_net.py --config-file RECIPE --init {self.overlay}")
            )
        return "\n".join(f"{label:8} {text}" for label, text in rows)


def convert(
    source: str | os.PathLike,
    output: str | os.PathLike,
    encoder: str | None = None,
    trust_pickle: bool = False,
    *,
    family: str | None = None,
    prefix: str | None = None,
    preprocessing: Preprocessing | None = None,
    channels: int = 0,
    channel_rule: str = "repeat",
    target: str = "detectron2",
    overlay: str | os.PathLike | None = None,
) -> Conversion:
    """Convert a checkpoint to a weight file; for detectron2, write the init overlay beside it.

    Neither appears unless every check passed.

    Args:
        source: a checkpoint of a family in ``moco_det/weights/sources/table.py``, a folder with one, or a name of
            official weights.
        output: where to, in a folder that exists; its ending says the format.
        encoder: ``"query"`` or ``"key"``, where the source has both; None takes the family's own choice.
        trust_pickle: allow the source to run code while it is read.
        family: the source's family, where its content is ambiguous.
        prefix: what the backbone's names begin with, where the source has several.
        preprocessing: how the weights want their input, in place of what the file or its family says.
        channels: of the images that the written weights are for; 0: as the source's.
        channel_rule: how they are made, see :func:`with_channels`.
        target: one of ``TARGETS``.
        overlay: where the overlay goes; None: beside ``output``, as ``.yaml``.

    Raises:
        ValueError: a path, the source or one of its tensors is not as it must be.
        OSError: a file cannot be read or written.
    """
    if str(source) in OFFICIAL and not Path(source).exists():
        source = fetch(str(source))
    with Progress("converting", 3, "part") as shown:  # read, checked, written and proven
        source, output = weight_file(source), Path(output)
        overlay = _check_paths(source, output, target, overlay)
        found = locate_backbone(read_checkpoint(source, trust_pickle), encoder, family, prefix, preprocessing)
        shown.update()
        assumed = []
        if channels and channels != in_channels(found.backbone):
            assumed.append(_channels_note(found, channels, channel_rule, preprocessing))
            found = for_channels(found, channels, channel_rule)
        assumed += preprocessing_notes(found, preprocessing)
        preprocessing = agreed_preprocessing(found, preprocessing)
        check_target(target, output, preprocessing)
        arch = agreed_arch(found)
        tensors, notes = check_backbone(found.backbone, arch, in_channels(found.backbone))
        notes += assumed
        if preprocessing != TORCHVISION_PREPROCESSING and not records_preprocessing(target, output):
            notes.append(
                "the file has no place for its preprocessing: keep the line above, or write .safetensors"
            )
        rename = to_detectron2 if TARGETS[target].detectron2_names else str
        kept = {name: rename(name) for name in tensors}
        provenance = {
            "source": found.family,
            "file": source.name,
            "sha256": file_sha256(source),
            "encoder": found.encoder,
            "arch": arch,
            "config": found.record.config,
        }
        shown.update()
        differences = {}

        def prove(written: Path) -> None:
            differences.update(prove_equal_features(written, tensors, arch, preprocessing.stride_in_1x1))

        named = {kept[name]: tensor for name, tensor in tensors.items()}
        with _overlay_appears(overlay, output, preprocessing, arch):
            write_target(output, target, named, preprocessing, provenance, prove)
            shown.update()
    renamed = {found.renamed[name]: kept[name] for name in tensors if name in found.renamed}
    return Conversion(
        kept=kept,
        renamed=renamed,
        dropped=found.dropped,
        bookkeeping=found.bookkeeping,
        notes=[*found.notes, *notes],
        differences=differences,
        target=target,
        output=output,
        overlay=overlay,
        provenance=provenance,
        preprocessing=preprocessing,
    )


def _channels_note(found: Source, channels: int, rule: str, given: Preprocessing | None) -> str:
    before = in_channels(found.backbone)
    rule = "mean" if 1 in (before, channels) else rule
    how = {
        "repeat": f"the filter of channel c is that of c modulo {before}, times {before}/{channels}",
        "mean": f"each filter is the mean of {before}, times {before}/{channels}",
    }[rule]
    numbers = (
        "" if given else "; mean and std are averages: --pixel-mean, --pixel-std and --pixel-range say others"
    )
    return f"the first convolution was made for {channels} channels of one for {before}: {how}{numbers}"


@contextlib.contextmanager
def _overlay_appears(overlay: Path | None, output: Path, preprocessing: Preprocessing, arch: str):
    """The overlay takes its name after the weights took theirs, and not at all when they fail."""
    if overlay is None:
        yield
        return
    weights = os.path.relpath(output.absolute(), overlay.absolute().parent)
    values = init_values(weights, preprocessing.to_dict(), arch)
    use = f"Use: tools/train_net.py --config-file RECIPE --init {overlay.stem}.yaml. Keep it beside {output.name}."
    with atomic_write(overlay) as temporary:
        text = overlay_text(TITLE, (use,), values)
        temporary.write_text(text, encoding="utf-8")
        yield


def _check_paths(source: Path, output: Path, target: str, overlay: str | os.PathLike | None) -> Path | None:
    """Refuse paths that cannot work; gives the overlay's, None where there will be none."""
    check_target(target, output)
    if not output.parent.is_dir():
        raise ValueError(f"the folder of output {str(output)!r} does not exist; make it first")
    if output.exists() and output.samefile(source):
        raise ValueError(
            f"source and output are the same file, {str(source)!r}; give the output another name"
        )
    loadable = target == "detectron2" and output.suffix in (".pkl", ".pth")
    if overlay is None and not loadable:
        return None
    if not loadable:
        raise ValueError(
            f"--emit-init is for weights that tools/train_net.py loads (.pkl, .pth), not for --to {target} "
            f"{output.name}; leave it out"
        )
    overlay = Path(overlay) if overlay is not None else output.with_suffix(".yaml")
    if overlay.suffix != ".yaml" or not overlay.parent.is_dir():
        raise ValueError(f"--emit-init is {str(overlay)!r}; expected a .yaml in a folder that exists")
    check_replaceable(overlay, TITLE)
    return overlay


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
