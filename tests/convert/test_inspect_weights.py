import json
from pathlib import PurePosixPath

import pytest
import torch
from family_examples import EXAMPLES

from moco_det.convert.command import main as convert_main
from moco_det.convert.convert import convert
from moco_det.convert.inspect_weights import main
from moco_det.weights.backbone_file import read_backbone


def test_a_checkpoint(tmp_path, official, capsys):
    torch.save(official, tmp_path / "a.pth.tar")
    main([str(tmp_path / "a.pth.tar"), "--tensors", "--json", str(tmp_path / "facts.json")])
    out = capsys.readouterr().out
    for part in (
        "family   moco, has query and key, shown: query; layout from facebookresearch/moco@7397dfe",
        "network  resnet18, 100 tensors, 11,186,112 numbers",
        "input    format RGB, pixel_mean [123.675, 116.28, 103.53]",
        "beside   2 dictionary",
        "beside   entries: epoch, arch, optimizer",
        "origin   epoch: 200\norigin   arch: resnet50\n",
        "tensor   encoder_q.conv1.weight float32 64x3x7x7",
        "next     tools/convert_to_d2.py",
    ):
        assert part in out
    assert json.loads((tmp_path / "facts.json").read_text())["arch"] == "resnet18"


def test_the_other_encoder_and_a_folder(tmp_path, official, capsys):
    torch.save(official, tmp_path / "a.pth.tar")
    main([str(tmp_path), "--encoder", "key", "--tensors"])
    out = capsys.readouterr().out
    assert f"file     {tmp_path / 'a.pth.tar'}" in out and "shown: key" in out
    assert "tensor   encoder_k.conv1.weight" in out and "encoder_q.conv1.weight" not in out


def test_no_code_of_the_file_runs_unless_it_is_trusted(tmp_path, resnet18, capsys):
    torch.save({"state_dict": resnet18, "args": PurePosixPath("somewhere")}, tmp_path / "a.pth")
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "a.pth")])
    assert "pass --trust-pickle" in capsys.readouterr().err
    main([str(tmp_path / "a.pth"), "--trust-pickle"])
    assert capsys.readouterr().out.endswith("backbone.pkl --trust-pickle\n")


def test_a_converted_file_tells_its_provenance(tmp_path, official, capsys):
    torch.save(official, tmp_path / "a.pth.tar")
    convert(tmp_path / "a.pth.tar", tmp_path / "b.pkl")
    main([str(tmp_path / "b.pkl")])
    out = capsys.readouterr().out
    assert f"next     tools/train_net.py --config-file RECIPE --init {tmp_path / 'b.pkl'}\n" in out
    assert "family   backbone" in out and "origin   source: moco" in out and "origin   file: a.pth.tar" in out


def test_what_stands_in_the_way_is_said_with_exit_code_1(tmp_path, resnet18, capsys):
    content = EXAMPLES["detectron2"](resnet18, None) | {"__author__": "x"}
    del content["model"]["res2.0.conv1.weight"]
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(SystemExit, match="1"):
        main([str(tmp_path / "a.pth")])
    out = capsys.readouterr().out
    assert "problem  a detectron2 file does not say" in out and "1 missing: layer1.0.conv1.weight" in out


def test_the_next_command_has_the_options_that_were_needed(tmp_path, resnet18, capsys):
    torch.save({f"encoder.{name}": value for name, value in resnet18.items()}, tmp_path / "a.pth")
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "a.pth")])
    main([str(tmp_path / "a.pth"), "--family", "pixpro", "--encoder", "query"])
    command = capsys.readouterr().out.splitlines()[-1].split()
    assert command[:2] == ["next", "tools/convert_to_d2.py"]
    convert_main([*command[2:3], str(tmp_path / "b.pkl"), *command[4:]])
    assert read_backbone(tmp_path / "b.pkl").provenance["source"] == "pixpro"


def test_an_unknown_file_has_exit_code_2(tmp_path, capsys):
    torch.save({"features.0.weight": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path / "a.pth")])
    assert "error: the checkpoint is of no known family" in capsys.readouterr().err
