"""Images that a run cannot read: the list of them, and the fraction of them that is accepted."""

import os
from collections.abc import Iterable

from moco_det.utils.files import cut_unfinished_line

FILE_NAME = "unreadable_images.txt"
GRACE_IMAGES = 100  # images met before their unreadable fraction is checked (fewer in a smaller data set)

Unreadable = tuple[str, str]  # path, reason


def begin_list(output: str, resume: bool) -> None:
    """Remove the list of an earlier run in a folder, or with ``resume`` continue it; one process calls this."""
    path = os.path.join(output, FILE_NAME)
    if os.path.exists(path):
        if resume:
            cut_unfinished_line(path)
        else:
            os.remove(path)


class UnreadableLog:
    """Lists the distinct files that could not be read, and stops a run that meets too many of them.

    Each file stands once in ``OUTPUT_DIR/unreadable_images.txt``, as "file TAB reason". Processes may share the
    list: a line is written at once, so they do not mix theirs, though two may write the same one.

    Attributes:
        files: those on the list when it was last looked at.
    """

    def __init__(self, output: str, *, max_share: float, num_images: int):
        """
        Args:
            output: OUTPUT_DIR; the list is written when the first file is found.
            max_share: largest accepted fraction of the images met (DATASETS.MAX_UNREADABLE).
            num_images: images in the data set.
        """
        self.path = os.path.join(output, FILE_NAME)
        self.max_share, self.num_images = max_share, num_images
        self.files: set[str] = set()

    def update(self, unreadable: Iterable[Unreadable], met: int) -> dict[str, str]:
        """Note what could not be read.

        Args:
            unreadable: (path, reason) pairs.
            met: images that the run has taken so far; more than there are: all.

        Returns:
            the reasons of those that were not on the list.

        Raises:
            ValueError: more than ``max_share`` of the images met are unreadable. Checked from ``GRACE_IMAGES``
                images on, so that one bad file among the first does not stop a run.
        """
        new = dict(unreadable)
        if new or os.path.exists(self.path):
            with open(self.path, "a+", encoding="utf-8", errors="surrogateescape") as lines:
                lines.seek(0)
                self.files = {line.split("\t")[0] for line in lines}
                new = {path: reason for path, reason in new.items() if path not in self.files}
                lines.write("".join(f"{path}\t{reason}\n" for path, reason in new.items()))
            self.files.update(new)
        met = min(met, self.num_images)
        if met >= min(GRACE_IMAGES, self.num_images) and len(self.files) > self.max_share * met:
            which = "images met so far" if met < self.num_images else "images"
            raise ValueError(
                f"{len(self.files)} of the {met} {which} cannot be read, more than the accepted fraction "
                f"DATASETS.MAX_UNREADABLE = {self.max_share}; listed in {self.path!r}: fix or remove them, or "
                "raise DATASETS.MAX_UNREADABLE"
            )
        return new
