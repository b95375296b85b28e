import importlib.util
import shutil

import pytest
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from moco_det import model_zoo
from moco_det.testing.core import REPOSITORY
from moco_det_cli import places


def test_recipes_and_inits_are_listed_apart():
    recipes = model_zoo.list_configs()
    assert {
        "PascalVOC-Detection/faster_rcnn_R_50_C4_24k",
        "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x",
        "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_2x",
        "toy/faster_rcnn_R_18_FPN",
        "toy/mask_rcnn_R_18_FPN",
    } <= set(recipes)
    assert not [name for name in recipes if "Base-" in name or name.startswith("init/")]
    assert model_zoo.list_inits() == ["moco", "random", "supervised_msra", "supervised_torchvision"]


@pytest.mark.parametrize("suffix", ["", ".yaml"])
def test_a_config_is_recipe_below_overlay_below_weights(suffix):
    name = "PascalVOC-Detection/faster_rcnn_R_50_C4_24k"
    cfg = model_zoo.get_config(name + suffix, init="supervised_msra")
    assert cfg.SOLVER.MAX_ITER == 24000  # the recipe's
    assert cfg.INPUT.FORMAT == "BGR"  # the overlay's
    assert cfg.MODEL.WEIGHTS == "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    assert model_zoo.get_config(name, weights="mine.pkl").MODEL.WEIGHTS == "mine.pkl"
    assert model_zoo.get_config(name, init=None).MODEL.WEIGHTS == ""


def test_weights_that_were_not_given_do_not_become_a_random_start():
    cfg = model_zoo.get_config("toy/faster_rcnn_R_18_FPN")
    with pytest.raises(AssertionError, match="not found"):
        DetectionCheckpointer(nn.Linear(1, 1)).load(cfg.MODEL.WEIGHTS)


def test_unknown_names_give_the_nearest():
    with pytest.raises(ValueError, match="match: 'PascalVOC-Detection/faster_rcnn_R_50_C4_24k'"):
        model_zoo.get_config("PascalVOC-Detection/faster_rcnn_R50_C4_24k")
    with pytest.raises(ValueError, match="match: 'moco'"):
        model_zoo.get_config("toy/faster_rcnn_R_18_FPN", init="mocov2")


def test_a_path_is_taken_as_it_is(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("SOLVER:\n  MAX_ITER: 7\n")
    assert model_zoo.get_config(str(mine), init=None).SOLVER.MAX_ITER == 7


def test_recipes_are_found_in_a_wheel(tmp_path):
    """A wheel has no configs/ beside the package but one in it, and that one comes first."""
    package = tmp_path / "moco_det"
    shutil.copytree(REPOSITORY / "configs", package / "configs")
    (tmp_path / "moco_det_cli").mkdir()
    source = shutil.copy(places.__file__, tmp_path / "moco_det_cli")
    spec = importlib.util.spec_from_file_location("places_of_a_wheel", source)
    wheel = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(wheel)
    assert wheel.CONFIGS == package / "configs"
    assert wheel.list_configs() == model_zoo.list_configs()
