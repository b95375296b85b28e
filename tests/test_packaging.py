"""The wheel: package, recipes and console entry points; one clear sentence where detectron2 is missing or old."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from moco_det import model_zoo
from moco_det.testing.core import REPOSITORY
from moco_det_cli.command import COMMANDS


def run_python(code: str, folder, **environment) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("moco_det", "moco_det_cli", "configs"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / "source" / name, ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, folder / "source")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(folder / "source")], check=True)
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_wheel_has_the_recipes_of_the_checkout(wheel, tmp_path):
    code = (
        "from moco_det import model_zoo; print(model_zoo.__file__); print(*model_zoo.list_configs());"
        "cfg = model_zoo.get_config('PascalVOC-Detection/faster_rcnn_R_50_C4_24k.yaml', init='random');"
        "print(cfg.SOLVER.MAX_ITER)"
    )
    done = run_python(code, tmp_path, PYTHONPATH=str(wheel))
    assert done.returncode == 0, done.stderr
    file, names, iterations = done.stdout.splitlines()
    assert file.startswith(str(wheel)) and names.split() == model_zoo.list_configs() and iterations == "24000"


def test_install_names_every_command():
    (names,) = re.findall(r"the command `moco-det`: ([^.]+)\.", (REPOSITORY / "INSTALL.md").read_text())
    assert sorted(re.findall(r"`(?:moco-det )?([\w-]+)`", names)) == sorted(COMMANDS)


def test_console_entry_points_can_be_called(wheel, tmp_path):
    entries = configparser.ConfigParser()
    (path,) = wheel.glob("*.dist-info/entry_points.txt")
    entries.read(path)
    scripts = dict(entries["console_scripts"])
    assert len(scripts) == 12
    code = "import importlib\n" + "".join(
        f"assert callable(importlib.import_module({module!r}).{function})\n"
        for module, function in (target.split(":") for target in scripts.values())
    )
    done = run_python(code, tmp_path, PYTHONPATH=str(wheel))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "code, message",
    [
        (
            "sys.modules['detectron2'] = None",
            "moco_det needs detectron2 0.6 or newer, and there is none; see",
        ),
        (
            "m = types.ModuleType('detectron2'); m.__version__ = '0.5'; sys.modules['detectron2'] = m",
            "moco_det needs detectron2 0.6 or newer, found 0.5; see INSTALL.md",
        ),
    ],
)
def test_without_a_fitting_detectron2_one_sentence_says_so(tmp_path, code, message):
    done = run_python(f"import sys, types; {code}; import moco_det", tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"ImportError: {message}")


def test_setup_pins_nobody_and_leaves_detectron2_to_the_user(wheel):
    (metadata,) = wheel.glob("*.dist-info/METADATA")
    lines = metadata.read_text().splitlines()
    needs = [
        line.split(";")[0] for line in lines if line.startswith("Requires-Dist")
    ]  # without "; extra == …"
    assert not any("setuptools" in line for line in needs)
    assert len(needs) >= 9 and not any("==" in line or "detectron2" in line for line in needs)


def test_the_host_s_model_zoo_without_pkg_resources(tmp_path):
    """Without it, as with setuptools 82, the zoo works, and the stand-in is gone after its import."""
    code = (
        "import sys; sys.modules['pkg_resources'] = None\n"
        "from moco_det.model_zoo.detectron2_zoo import model_zoo\n"
        "assert 'pkg_resources' not in sys.modules\n"
        "cfg = model_zoo.get_config('COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml')\n"
        "print(cfg.MODEL.MASK_ON, cfg.MODEL.FPN.OUT_CHANNELS)"
    )
    done = run_python(code, tmp_path)
    assert done.stdout == "True 256\n", done.stderr
