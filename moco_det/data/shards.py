"""Images in tar shards (WebDataset's layout), read in place: nothing of a shard is ever unpacked or followed.

Reading a shard's headers once gives the place of each image: shard, name, first byte and size. A place is a
string, so that it stands in a list of images beside ordinary paths. From then on an image is one read at a known
place, in any order, by any worker.

An entry that cannot be an image's bytes (a link, a device, what follows damage) is a place that cannot be read, so
that it is replaced, counted and listed as any other unreadable image.
"""

import functools
import itertools
import logging
import os
import re
import stat
import tarfile
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

logger = logging.getLogger(__name__)

EXTENSION = ".tar"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4")
_MAGIC = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}
# Far above any image that is decoded; a header may claim what it likes.
MAX_BYTES = 2**30
OPEN_SHARDS = 128  # kept open by a process; most systems allow 1,024 files
NAMED = 10  # damaged entries that the log names
INDEX_THREADS = 8  # shards whose headers are read at a time: on network disks, the time is waiting
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


class Place(str):
    """The path of an image in a shard: as text ``shard.tar/member``, and where its bytes lie.

    Text made from it (``str(place)``, a line of a file) names the image and does not lead to its bytes.

    Attributes:
        shard: path of the tar file.
        name: of the member, harmless to print; nothing is ever written under it.
        offset, size: of its bytes in the shard.
        error: why there is no image; empty: there is one.
    """

    __slots__ = ("shard", "offset", "size", "error")  # there may be millions

    def __new__(cls, shard: str, name: str, offset: int = 0, size: int = 0, error: str = ""):
        place = super().__new__(cls, f"{shard}/{name}")
        place.shard, place.offset, place.size, place.error = shard, offset, size, error
        return place

    @property
    def name(self) -> str:
        return self[len(self.shard) + 1 :]

    def __getnewargs__(self) -> tuple:
        """The arguments from which copies and pickles are made."""
        return self.shard, self.name, self.offset, self.size, self.error


# ---- which shards ------------------------------------------------------------------------------------


def is_shard(name: str) -> bool:
    """Whether a file is a shard, by its name; :func:`find_members` looks at the content.

    Raises:
        ValueError: it is a compressed one, in which no place can be read without all before it.
    """
    lower = name.lower()
    if lower.endswith(COMPRESSED):
        raise ValueError(
            f"{name!r} is a compressed archive, in which images cannot be read in any order; decompress it to a "
            "plain .tar (gunzip and the like; images do not shrink further), or unpack it to a folder"
        )
    return lower.endswith(EXTENSION)


def expand_braces(pattern: str) -> Iterator[str]:
    """The names of a pattern such as ``train-{000000..000147}.tar`` or ``{train,val}.tar``, in its order.

    Raises:
        ValueError: a range runs backwards.
    """
    found = _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    first, last, words = found.groups()
    if words is not None:
        middles: Iterable[str] = words.split(",")
    else:
        if int(first) > int(last):
            raise ValueError(f"the pattern {pattern!r} counts from {first} down to {last}; expected upwards")
        middles = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    for middle in middles:
        yield from expand_braces(pattern[: found.start()] + middle + pattern[found.end() :])


def shards_of(pattern: str) -> list[str]:
    """The shards that a name or a brace pattern stands for, all of which exist.

    Raises:
        ValueError: one does not: a whole shard is too much to pass over.
    """
    shards = []
    for shard in expand_braces(pattern):
        if not os.path.isfile(shard):
            before = f", after {len(shards)} that do" if shards else ""
            raise ValueError(
                f"the shard {shard!r} does not exist{before} (looked in {os.getcwd()!r}); give a folder of .tar "
                "shards, a pattern such as train-{000000..000147}.tar of shards that are all there, or a text "
                "file with one shard a line"
            )
        shards.append(shard)
    return shards


# ---- which images are in them ------------------------------------------------------------------------


def find_members(shards: Iterable[str], extensions: tuple[str, ...]) -> list[Place]:
    """The places of all images: shard by shard, each in the order of its members.

    Args:
        extensions: of names that are images', in lower case. Names with a part that begins with a dot are passed
            over, as in folders.

    Raises:
        ValueError: a shard is compressed, or there is no image in them that can be read.
    """
    shards = list(shards)
    with ThreadPoolExecutor(INDEX_THREADS) as pool:
        indices = pool.map(lambda shard: list(_members(shard, extensions)), shards)
        places = list(itertools.chain.from_iterable(indices))
    damaged = [place for place in places if place.error]
    for place in damaged[:NAMED]:
        logger.warning(f"{place}: {place.error}")
    if len(damaged) > NAMED:
        logger.warning(f"… and {len(damaged) - NAMED} more entries of shards that cannot be read")
    if len(damaged) == len(places):
        why = f"; {damaged[0]}: {damaged[0].error}" if damaged else ""
        raise ValueError(
            f"no image in {len(shards)} shards, e.g. {shards[0]!r}; looked for {', '.join(extensions)}{why}"
        )
    return places


def _members(shard: str, extensions: tuple[str, ...]) -> Iterator[Place]:
    """The images of one shard, and a place without an image where the shard is damaged."""
    if not stat.S_ISREG(os.stat(shard).st_mode):
        yield Place(shard, "", error="not a regular file")
        return
    with open(shard, "rb") as file:
        kind = _MAGIC.get(file.read(2))
        if kind is not None:
            raise ValueError(f"{shard!r} is compressed by {kind}; decompress it to a plain .tar")
        file.seek(0)
        size = os.fstat(file.fileno()).st_size
        end = 0  # of the last whole header
        try:
            with tarfile.open(fileobj=file, mode="r:", errorlevel=0) as archive:
                while (member := archive.next()) is not None:
                    if member.offset_data <= end or member.size < 0:
                        raise tarfile.ReadError("a header that leads backwards")
                    end = member.offset_data
                    archive.members.clear()  # else a million of them would be kept
                    if _is_image(member.name, extensions):
                        yield _place(shard, member, size)
                stopped = archive.offset
        except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
            yield _damage(shard, end, size, str(error))
            return
        file.seek(stopped)
        if any(file.read(tarfile.BLOCKSIZE)):  # an archive ends with zeros, or at the end of the file
            yield _damage(shard, stopped, size, "no header where one must be")


def _is_image(name: str, extensions: tuple[str, ...]) -> bool:
    parts = [part for part in name.split("/") if part not in (".", "..")]
    return name.lower().endswith(extensions) and not any(part.startswith(".") for part in parts)


def _place(shard: str, member: tarfile.TarInfo, shard_size: int) -> Place:
    error = ""
    if not member.isreg() or member.issparse():
        error = "a link, a device or the like in the shard, which is not followed"
    elif member.offset_data + member.size > shard_size:
        error = f"truncated: the shard ends {member.offset_data + member.size - shard_size:,} bytes too early"
    elif member.size > MAX_BYTES:
        error = f"{member.size:,} bytes, more than {MAX_BYTES:,}"
    return Place(shard, _printable(member.name), member.offset_data, member.size, error)


def _damage(shard: str, start: int, size: int, reason: str) -> Place:
    name = f"(after byte {start:,} of {size:,})"
    return Place(shard, name, error=f"the shard is damaged, what follows is lost: {_printable(reason)}")


def _printable(text: str) -> str:
    """The text without line ends, null bytes and what else a hostile name may hold, and no ``./`` before it."""
    shown = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return shown.removeprefix("./")


# ---- the bytes of one --------------------------------------------------------------------------------


class _OpenShard:
    """A file descriptor that closes with its last user. Reads say where, so processes may share it."""

    def __init__(self, path: str):
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.descriptor)


_open_shard = functools.lru_cache(OPEN_SHARDS)(_OpenShard)


def read(place: Place) -> bytes:
    """The bytes of a place's image.

    Raises:
        ValueError: there is none, for the reason given; OSError: the shard is gone or cannot be read.
    """
    if place.error:
        raise ValueError(place.error)
    shard, parts, left = _open_shard(place.shard), [], place.size
    while left:
        part = os.pread(shard.descriptor, left, place.offset + place.size - left)
        if not part:
            raise ValueError("the shard ends before the image does; it was changed since the start")
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
