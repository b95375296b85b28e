"""moco-det doctor, on installations and machines that are broken in one way each; and the command moco-det."""

import json
import os
import re
import resource
import subprocess
import sys

import pytest

from moco_det.engine.record import command_line
from moco_det.testing.core import REPOSITORY
from moco_det_cli import command, doctor, machine_checks, package_checks
from moco_det_cli.findings import OK, STOP, WARNING

HEALTHY = {
    "torch": {"version": "2.11.0+cu130", "cuda": "13.0", "hip": None},
    "gpus": {"found": [], "warnings": [], "driver": False, "hidden": False},
    "torchvision": {"version": "0.26.0", "wants": [], "error": ""},
    "detectron2": {
        **{"version": "0.6", "origin": "a wheel", "compiled": ["_C.so"], "compiled_error": ""},
        "pkg_resources": True,
    },
    "moco_det": {"version": "1", "folder": "/", "cpu_capability": "AVX2", "cpu_bfloat16": False},
    "datasets": {"root": "/data", "found": ["coco_2017_val"]},
}
GPU = {"name": "X", "capability": [8, 0], "bytes": 80 * 2**30, "free": 79 * 2**30, "error": ""}


def run_doctor(*paths, no_writes=False) -> tuple[int, dict[str, dict]]:
    """Exit code and findings by name, where modules in ``paths`` come before the installed ones."""

    def forbid_writes():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    done = subprocess.run(
        [sys.executable, REPOSITORY / "tools/doctor.py", "--json"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        preexec_fn=forbid_writes if no_writes else None,
        capture_output=True,
        text=True,
    )
    report = json.loads(done.stdout)
    assert report["stops"] == bool(done.returncode)
    return done.returncode, {finding["name"]: finding for finding in report["findings"]}


def test_a_healthy_installation():
    code, found = run_doctor()
    assert code == 0
    for name in ("Python", "torch", "torchvision", "detectron2", "moco_det", "other packages", "CPU cores"):
        assert found[name]["verdict"] == OK, found[name]
    assert "datasets" in found["data sets"]["found"]


def test_a_disk_that_takes_nothing():
    code, found = run_doctor(no_writes=True)
    assert code == 1
    for name in ("disk for output", "disk for temporary files"):
        assert found[name]["verdict"] == STOP and found[name]["fix"]
    assert "cannot write 1 MiB" in found["disk for output"]["found"]
    assert found["torch"]["verdict"] == OK
    assert "No usable temporary directory" in found["moco_det"]["found"]  # torch asks for one
    assert "disks below" in found["moco_det"]["fix"]


def test_without_detectron2_and_with_a_torchvision_of_another_torch(tmp_path):
    (tmp_path / "torchvision").mkdir()
    line = "raise RuntimeError('operator torchvision::nms does not exist')"
    (tmp_path / "torchvision/__init__.py").write_text(line)
    line = "raise ModuleNotFoundError('No module named detectron2', name='detectron2')"
    (tmp_path / "detectron2.py").write_text(line)
    code, found = run_doctor(tmp_path)
    assert code == 1 and found["torch"]["verdict"] == OK
    assert found["torchvision"]["verdict"] == STOP
    assert "operator torchvision::nms does not exist" in found["torchvision"]["found"]
    assert found["detectron2"]["verdict"] == STOP and found["detectron2"]["found"] == "not installed"
    assert "make setup" in found["detectron2"]["fix"]
    assert "since the above does not import" in found["moco_det"]["found"]


@pytest.mark.parametrize(
    "line, where, found",
    [
        ("raise ModuleNotFoundError('No module named torch', name='torch')", "torch", "not installed"),
        ("import yaml.nowhere", "torch", "does not import: ModuleNotFoundError"),
        ("import os; os.kill(os.getpid(), 4)", "imports", "importing torch was ended by signal 4"),
        ("import os; os._exit(3)", "imports", "importing torch ended with exit code 3"),
        ("import time; time.sleep(60)", "imports", "importing torch did not end in 2 s"),
    ],
)
def test_a_torch_that_is_not_there_crashes_or_hangs(tmp_path, monkeypatch, line, where, found):
    (tmp_path / "torch.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    findings = {finding.name: finding for finding in doctor.examine(seconds=2)}
    assert findings[where].verdict == STOP and findings[where].found.startswith(found), findings[where]
    assert findings[where].fix
    assert findings["GPUs"].found == "not looked at, since torch does not import"


def checked(step: str, **changes) -> list:
    facts = {**HEALTHY, step: {**HEALTHY[step], **changes}}
    return [*package_checks.imported(facts, ""), machine_checks.gpus(facts), machine_checks.datasets(facts)]


@pytest.mark.parametrize(
    "step, changes, name, verdict, words",
    [
        ("torch", {"version": "2.3.1"}, "torch", STOP, "2.4 or newer"),
        ("torch", {"version": "2.10.0+cpu", "cuda": None}, "torch", OK, "for CPUs"),
        ("torchvision", {"error": "no"}, "torchvision", STOP, "0.26.0 does not run with torch 2.11.0"),
        ("detectron2", {"version": "0.5"}, "detectron2", STOP, "0.6 or newer"),
        ("detectron2", {"compiled": []}, "detectron2._C", OK, "none: rotated boxes"),
        ("detectron2", {"compiled_error": "undefined symbol"}, "detectron2._C", WARNING, "does not load"),
        ("detectron2", {"pkg_resources": False}, "detectron2.model_zoo", WARNING, "pkg_resources"),
        ("gpus", {"found": [GPU]}, "GPUs", OK, "79 of 80 GiB free, fast in float32, float16, bfloat16"),
        ("gpus", {"found": [GPU | {"capability": [7, 5]}]}, "GPUs", OK, "fast in float32, float16)"),
        ("gpus", {"found": [GPU | {"error": "no kernel image"}]}, "GPUs", STOP, "X: no kernel image"),
        ("gpus", {"driver": True, "warnings": ["too old"]}, "GPUs", WARNING, "sees no GPU: too old"),
        ("gpus", {"driver": True, "hidden": True}, "GPUs", OK, "CUDA_VISIBLE_DEVICES"),
        ("datasets", {"found": []}, "data sets", WARNING, "none in /data"),
        ("datasets", {}, "data sets", OK, "coco_2017_val in /data"),
    ],
)
def test_what_is_checked(step, changes, name, verdict, words):
    (finding,) = [finding for finding in checked(step, **changes) if finding.name == name]
    assert finding.verdict == verdict and words in finding.found
    assert bool(finding.fix) == (verdict != OK)


def test_all_is_well_with_a_healthy_installation():
    assert {finding.verdict for finding in checked("torch")} == {OK}


@pytest.mark.parametrize("free, verdict", [(64 * 2**20, WARNING), (8 * 2**30, OK)])
def test_docker_s_shared_memory_is_small(monkeypatch, tmp_path, free, verdict):
    monkeypatch.setattr(machine_checks.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    finding = machine_checks.shared_memory(str(tmp_path))
    assert finding.verdict == verdict and ("--shm-size" in finding.fix) == (verdict == WARNING)


@pytest.mark.parametrize(
    "variable, busy, verdict, words",
    [
        ("4", 0.1, OK, "0.1 cores are busy"),
        ("4", 2.0, WARNING, "OMP_NUM_THREADS=2"),
        ("all", 0.1, WARNING, "OMP_NUM_THREADS=4"),
        ("", 0.1, OK, "(not set)"),
        ("1", 3.9, WARNING, "end other programs"),
        ("4", None, OK, "does not tell"),
    ],
)
def test_threads_are_judged_by_the_load(monkeypatch, variable, busy, verdict, words):
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    monkeypatch.setattr(machine_checks, "busy_cores", lambda: busy)
    monkeypatch.setattr(machine_checks, "usable_cores", lambda: 4)
    monkeypatch.setattr(machine_checks, "free_cores", lambda busy: max(1, round(4 - busy)))
    finding = machine_checks.processor(HEALTHY)[-1]
    assert finding.verdict == verdict and words in f"{finding.found} {finding.fix}"


def test_missing_and_old_packages_are_named(monkeypatch):
    versions = dict.fromkeys((*package_checks.REQUIREMENTS, *package_checks.OF_DETECTRON2), "99")
    versions |= {"numpy": "1.25.9", "yacs": None}

    def version(name):
        if versions[name] is None:
            raise package_checks.importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(package_checks.importlib.metadata, "version", version)
    (finding,) = package_checks.requirements()
    assert finding.verdict == STOP and finding.found == "missing: yacs; too old, needed: numpy>=1.26"
    assert finding.fix == "pip install yacs 'numpy>=1.26'"
    versions |= {"numpy": "1.26.0", "yacs": "0.1"}
    assert package_checks.requirements()[0].verdict == OK


def test_the_doctor_knows_what_setup_py_requires():
    text = (REPOSITORY / "setup.py").read_text().split("install_requires=[")[1].split("],")[0]
    needs = dict(re.findall(r'^ +"([\w-]+)(?:>=([\d.]+))?"', text, flags=re.MULTILINE))
    assert needs.pop("torch") == package_checks.TORCH and needs.pop("torchvision")
    assert needs == package_checks.REQUIREMENTS


def test_the_text_has_a_line_for_each_and_its_fix():
    text = doctor.as_text(checked("torch", version="2.0"))
    assert "STOP     torch" in text and "fix: pip install --upgrade torch" in text
    assert text.endswith("1 finding would stop a run")
    assert doctor.as_text(checked("torch")).endswith("nothing here would stop a run")


def test_an_old_python_is_all_that_is_said(monkeypatch):
    monkeypatch.setattr(package_checks.sys, "version_info", (3, 9, 1))
    (finding,) = doctor.examine()
    assert finding.verdict == STOP and "3.10 or newer" in finding.found


def test_every_command_is_there_and_gets_its_arguments(monkeypatch, capsys):
    for name in command.COMMANDS:
        monkeypatch.setattr("sys.argv", ["/bin/moco-det", name, "--help"])
        with pytest.raises(SystemExit) as ended:
            command.main()
        assert ended.value.code == 0
        assert f"usage: moco-det {name}" in (shown := capsys.readouterr().out) and "COMMAND" not in shown
        assert command_line() == f"moco-det {name} --help"


def test_every_console_script_is_a_command_too():
    scripts = re.findall(r'"moco-det-([\w-]+)=([\w.]+:\w+)"', (REPOSITORY / "setup.py").read_text())
    assert len(scripts) == 11
    assert {target for _, target in scripts} == {"moco_det_cli.command:run_by_script"}
    assert {name for name, _ in scripts} <= set(command.COMMANDS)


def test_the_command_names_its_commands(capsys):
    command.main([])
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in command.COMMANDS)
    with pytest.raises(SystemExit) as ended:
        command.main(["trian"])
    assert ended.value.code == 2 and "'trian' is no command" in capsys.readouterr().err


def test_a_command_that_needs_a_checkout_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(command, "TOOLS", tmp_path)
    with pytest.raises(SystemExit) as ended:
        command.main(["benchmark", "--help"])
    assert ended.value.code == 2 and "scripts of a checkout" in capsys.readouterr().err


def test_a_broken_installation_leads_to_the_doctor(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "moco_det.data.pack", None)
    with pytest.raises(SystemExit) as ended:
        command.main(["pack", "--output", "x"])
    assert ended.value.code == 2 and "`moco-det doctor` says what is wrong" in capsys.readouterr().err
    monkeypatch.setenv("MOCO_DET_TRACEBACK", "1")
    with pytest.raises(ModuleNotFoundError):
        command.main(["pack", "--output", "x"])
