"""``tools/pack_images.py``: a packed copy of any images, small JPEGs in tar shards that training reads in place.

The shards are written into ``OUTPUT.unfinished``, which takes its name when all is done: what is called OUTPUT
is whole. The same command resumes an interrupted copy, at the last whole shard. Images are made in parallel and
written in their order, so the shards do not depend on the number of processes, nor on interruptions.
"""

import dataclasses
import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

from moco_det.data.decoding import UnreadableImage
from moco_det.data.image_files import find_images, names_digest, registered_images
from moco_det.data.packed_images import Settings, member_names, pack_each, packed_jpeg
from moco_det.data.shards import EXTENSION
from moco_det.data.unreadable import FILE_NAME as UNREADABLE
from moco_det.utils.children import resumed_by
from moco_det.utils.disk_space import check_space
from moco_det.utils.errors import user_errors
from moco_det.utils.files import atomic_write, datasets_root, gib
from moco_det.utils.progress import Progress
from moco_det.version import __version__
from moco_det_cli.parsers.data import pack_parser

RECORD = "pack.json"
UNFINISHED = ".unfinished"
MIB = 2**20
SAMPLE = 64  # images that are packed beforehand, to foresee how much disk is needed
_MEMBER_BYTES = 1024  # of a header, and of the padding after the content, on average


def root_of(where: str | None) -> str:
    """The folder below which images are named: that given, that of a list file, or that of the data sets."""
    if not where:
        return datasets_root()
    return where if os.path.isdir(where) else os.path.dirname(where) or "."


# ---- the disk ----------------------------------------------------------------------------------------


def foresee_bytes(paths: Sequence[str], settings: Settings) -> int:
    """What the shards will take, by ``SAMPLE`` images spread over all.

    Raises:
        ValueError: none of these can be read.
    """
    sample = paths[:: max(len(paths) // SAMPLE, 1)][:SAMPLE]
    sizes, reason = [], None
    for path in sample:
        try:
            sizes.append(len(packed_jpeg(path, settings)))
        except UnreadableImage as error:
            reason = error
    if not sizes:
        raise ValueError(f"none of {len(sample)} images can be read, e.g.: {reason}")
    return round((sum(sizes) / len(sizes) + _MEMBER_BYTES) * len(paths))


# ---- the shards --------------------------------------------------------------------------------------


def pack(
    paths: Sequence[str], root: str, output: Path, settings: Settings, record: dict, num_workers: int = 0
) -> dict:
    """Write the packed copy, or finish an interrupted one.

    Args:
        paths: the images, as of :func:`find_images`; root: the folder below which names are taken.
        output: the folder to be; it does not exist.
        record: provenance, to be written with what was done.

    Returns:
        the record of the finished copy.

    Raises:
        ValueError: another copy was started there, or no image can be read. OSError: the disk is full.
    """
    folder = output.with_name(output.name + UNFINISHED)
    done = _begin_or_go_on(folder, record)
    names = member_names(paths, root)
    start = done["shards"][-1]["end"] if done["shards"] else 0
    items = pack_each(paths[start:], settings, num_workers)
    with Progress("packing", len(paths), done=start) as progress:
        while start < len(paths):
            shard = _write_shard(folder, len(done["shards"]), start, items, names, settings, progress)
            done["shards"].append(shard)
            with atomic_write(folder / RECORD) as temporary:
                temporary.write_text(json.dumps(done, indent=1))
            start = shard["end"]
    packed = sum(shard["images"] for shard in done["shards"])
    unreadable = [line for shard in done["shards"] for line in shard["unreadable"]]
    if not packed:
        raise ValueError(f"none of {len(paths)} images can be read, e.g. {': '.join(unreadable[0])}")
    done |= {
        "images": packed,
        "unreadable": len(unreadable),
        "bytes": sum(s["bytes"] for s in done["shards"]),
    }
    with atomic_write(folder / RECORD) as temporary:
        temporary.write_text(json.dumps(done, indent=1) + "\n")
    if unreadable:
        with atomic_write(folder / UNREADABLE) as temporary:
            text = "".join(f"{path}\t{reason}\n" for path, reason in unreadable)
            temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
    assert len(find_images(str(folder))) == packed  # each can be found again
    os.replace(folder, output)
    return done


def _begin_or_go_on(folder: Path, record: dict) -> dict:
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob(".*.tmp"):
        left_over.unlink()
    if not (folder / RECORD).exists():
        return {**record, "shards": []}
    done = json.loads((folder / RECORD).read_text())
    was = {key: value for key, value in done.items() if key in record}
    differ = [
        f"{key} was {was.get(key)!r}, is {record[key]!r}" for key in record if was.get(key) != record[key]
    ]
    if differ:
        raise ValueError(
            f"{str(folder)!r} holds the beginning of another copy ({'; '.join(differ)}); give the same, or remove "
            "that folder"
        )
    return done


def _write_shard(folder, number, start, items, names, settings: Settings, progress) -> dict:
    """Images from ``start`` on until the shard is full; what it holds, and where the next one begins."""
    path, unreadable, count = folder / f"images-{number:06d}{EXTENSION}", [], 0
    with atomic_write(path) as temporary:
        with tarfile.open(temporary, "w") as archive:
            for index in range(start, len(names)):
                item = next(items)
                progress.update()
                if isinstance(item, tuple):
                    unreadable.append(item)
                    continue
                member = tarfile.TarInfo(names[index])
                member.size = len(item)
                archive.addfile(member, io.BytesIO(item))
                count += 1
                archive.members.clear()  # else each name would be kept
                if archive.offset >= settings.shard_mib * MIB:
                    break
        size = os.path.getsize(temporary)
    return {"name": path.name, "images": count, "bytes": size, "end": index + 1, "unreadable": unreadable}


# ---- the command -------------------------------------------------------------------------------------


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """Entry of ``tools/pack_images.py``."""
    args = pack_parser().parse_args(argv)
    settings = Settings(args.shorter_side, args.quality, args.shard_mib)
    settings.check()
    if bool(args.images) == bool(args.datasets):
        raise ValueError("expected either --images or --datasets, to say what is packed")
    if args.num_workers < 0:
        raise ValueError(f"--num-workers is {args.num_workers}; expected 0 or more")
    output = Path(os.path.abspath(args.output))
    if output.exists():
        raise ValueError(f"--output {args.output!r} exists already; choose another, or remove it")
    paths = find_images(args.images) if args.images else registered_images(args.datasets)
    needed = foresee_bytes(paths, settings)
    unfinished = output.with_name(output.name + UNFINISHED)
    there = (
        sum(file.stat().st_size for file in unfinished.glob(f"*{EXTENSION}")) if unfinished.exists() else 0
    )
    fix = "take a lower --shorter-side or --quality"
    free = check_space("--output", args.output, needed - there, f"about {len(paths):,} packed images", fix)
    print(
        f"{len(paths):,} images, packed about {gib(needed)} in {-(-needed // (settings.shard_mib * MIB))} shards; "
        f"{gib(there)} are there already, {gib(free)} free at {args.output}",
        flush=True,
    )
    if args.dry_run:
        return
    record = {
        "source": args.images or args.datasets,
        "found": names_digest(paths, args.images or ""),
        "settings": dataclasses.asdict(settings),
        "moco_det": __version__,
    }
    with resumed_by("the same command resumes it at the last whole shard"):
        done = pack(paths, root_of(args.images), output, settings, record, args.num_workers)
    print(
        f"{done['images']:,} images in {len(done['shards'])} shards, {gib(done['bytes'])}, in {args.output}"
    )
    if done["unreadable"]:
        print(f"{done['unreadable']:,} could not be read and are left out: {output / UNREADABLE}")
    print(f"next: tools/pretrain_moco.py --images {args.output} …")
