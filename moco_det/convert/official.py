"""The official MoCo weights by name: fetched once, and checked against the published beginning of their md5."""

import contextlib
import hashlib
import http.client
import os
import shutil
import urllib.request
from pathlib import Path
from typing import NamedTuple

import torch

from moco_det.utils.files import atomic_write


class Official(NamedTuple):
    """One published file; ``md5`` is the beginning that facebookresearch/moco's README gives."""

    url: str
    md5: str


_ROOT = "https://dl.fbaipublicfiles.com/moco/moco_checkpoints"
OFFICIAL = {
    "moco_v1_200ep": Official(f"{_ROOT}/moco_v1_200ep/moco_v1_200ep_pretrain.pth.tar", "b251726a"),
    "moco_v2_200ep": Official(f"{_ROOT}/moco_v2_200ep/moco_v2_200ep_pretrain.pth.tar", "59fd9945"),
    "moco_v2_800ep": Official(f"{_ROOT}/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar", "a04e12f8"),
}


def fetch(name: str) -> Path:
    """The local file of official weights, downloaded into torch's hub folder unless it is there already.

    Raises:
        ValueError: no network, or the file is not the published one; nothing of it is then kept.
    """
    url, md5 = OFFICIAL[name]
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if path.is_file() and _md5(path).startswith(md5):
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        _download(name, url, temporary)
        found = _md5(temporary)
        if not found.startswith(md5):
            raise ValueError(
                f"{name} from {url} has the md5 {found}; published is {md5}…: the download is damaged or another "
                "file, and was not kept; try again"
            )
    return path


def _download(name: str, url: str, path: Path) -> None:
    try:
        with contextlib.closing(urllib.request.urlopen(url, timeout=30)) as answer, open(path, "wb") as file:
            shutil.copyfileobj(answer, file, 1 << 20)
    except (OSError, http.client.HTTPException) as error:  # urllib's own errors are OSErrors
        reason = getattr(error, "reason", None) or error
        raise ValueError(
            f"{name} could not be fetched from {url} ({reason}); is there a network? Else download it elsewhere, "
            f"and give the file's path in place of {name}"
        ) from error


def _md5(path: str | os.PathLike) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
