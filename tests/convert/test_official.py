"""Official weights by name, from a file:// address in place of the network."""

import hashlib
import socket
import threading

import pytest
import torch

from moco_det.convert import official as module
from moco_det.convert.command import main
from moco_det.convert.convert import convert
from moco_det.convert.official import OFFICIAL, Official, fetch


@pytest.fixture
def published(tmp_path, monkeypatch, official):
    """moco_v2_200ep at a file:// address with its true md5; the hub's folder is in tmp_path too."""
    file = tmp_path / "server" / "moco_v2_200ep_pretrain.pth.tar"
    file.parent.mkdir()
    torch.save(official, file)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    md5 = hashlib.md5(file.read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(module.OFFICIAL, "moco_v2_200ep", Official(file.as_uri(), md5))
    return file


def cached(tmp_path):
    return sorted(path.name for path in (tmp_path / "hub").rglob("*") if path.is_file())


def test_published_checksums():
    """The checksums are those of facebookresearch/moco's README."""
    assert {name: entry.md5 for name, entry in OFFICIAL.items()} == {
        "moco_v1_200ep": "b251726a",
        "moco_v2_200ep": "59fd9945",
        "moco_v2_800ep": "a04e12f8",
    }
    assert all(f"/{name}/{name}_pretrain.pth.tar" in entry.url for name, entry in OFFICIAL.items())


def test_fetched_once_and_converted(tmp_path, published, capsys):
    main(["moco_v2_200ep", str(tmp_path / "b.pkl")])
    assert "moco_v2_200ep_pretrain.pth.tar (moco, query encoder, resnet18)" in capsys.readouterr().out
    published.unlink()
    assert fetch("moco_v2_200ep").read_bytes()  # from the hub's folder: the address is dead by now


def test_a_file_of_that_name_comes_first(tmp_path, published, monkeypatch, other_resnet18):
    monkeypatch.chdir(tmp_path)
    torch.save(other_resnet18, "moco_v2_200ep")
    assert convert("moco_v2_200ep", "b.pkl").provenance["source"] == "torchvision"
    assert cached(tmp_path) == []


def test_another_file_is_refused_and_not_kept(tmp_path, published, capsys):
    published.write_bytes(published.read_bytes()[:-1])
    with pytest.raises(SystemExit, match="2"):
        main(["moco_v2_200ep", str(tmp_path / "b.pkl")])
    error = capsys.readouterr().err
    assert "has the md5" in error and "published is" in error
    assert cached(tmp_path) == [] and not (tmp_path / "b.pkl").exists()


def test_a_damaged_copy_is_fetched_again(tmp_path, published):
    path = fetch("moco_v2_200ep")
    path.write_bytes(b"damaged")
    assert fetch("moco_v2_200ep").read_bytes() == published.read_bytes()


def test_no_network_is_said(tmp_path, published, capsys):
    published.unlink()
    with pytest.raises(SystemExit, match="2"):
        main(["moco_v2_200ep", str(tmp_path / "b.pkl")])
    error = capsys.readouterr().err
    assert "could not be fetched from file://" in error and "is there a network?" in error
    assert cached(tmp_path) == []


@pytest.mark.parametrize(
    "answer, message",
    [
        (b"garbage\r\n\r\n", "could not be fetched from http://.*garbage"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc",
            "could not be fetched .*IncompleteRead",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc",
            "has the md5 900150983cd24fb0d6963f7d28e17f72",
        ),
        (b"HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n", r"could not be fetched .*\(Gone\)"),
        (b"", "could not be fetched .*closed connection"),
    ],
)
def test_broken_answers_leave_no_file(tmp_path, published, monkeypatch, answer, message):
    """A server on this machine hangs up after its answer."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = server.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.getsockname()[1]}/a.pth.tar"
    monkeypatch.setitem(module.OFFICIAL, "moco_v2_200ep", Official(address, "59fd9945"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with server, pytest.raises(ValueError, match=message):
        fetch("moco_v2_200ep")
    thread.join()
    assert cached(tmp_path) == []
