"""The folder of data sets, sizes in words, and atomic writes of files."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from moco_det_cli.places import datasets_root  # noqa: F401  the package takes it from here


def existing_parent(path: str) -> str:
    """The path, or the nearest folder above it that exists."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def gib(count: float) -> str:
    """Bytes in words."""
    return f"{count / 2**30:.2f} GiB"


def cut_unfinished_line(path: str | os.PathLike) -> None:
    """Remove the last line of a file if it has no end."""
    with open(path, "rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary path in the same folder; what is written there takes the name ``path`` at the end.

    Raises:
        OSError: it cannot be written; names the path and the reason. ``path`` is then as it was, and the
            temporary file is gone.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # else a crash after the rename could leave an empty file under the name
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        if isinstance(error.__cause__, OSError):
            raise  # of a file that is written inside this one: it says all already
        raise OSError(
            f"cannot write {str(path)!r}: {error.strerror or error}; nothing was written there"
        ) from error
    finally:
        with contextlib.suppress(OSError):  # the error that led here says more
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a new name survive a power failure. Some network file systems cannot, and need not."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
