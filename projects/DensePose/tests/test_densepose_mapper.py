"""Annotations move with the image: pictures, not formulas, say what is right."""

import copy
import json

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from moco_densepose.annotations import DensePoseTargets, coarse_mask, read_target
from moco_densepose.charts import COARSE_OF_CHART
from moco_densepose.config import add_densepose_config
from moco_densepose.mapper import DensePoseMapper
from moco_densepose.symmetry import Symmetry
from moco_densepose.toy_bodies import annotate
from moco_densepose.toy_figure import Pose, render
from moco_densepose.toy_tables import symmetry_tables
from moco_det.config import get_cfg, merge_config
from moco_det.finetune.mappers import build_mapper
from moco_det.model_zoo import get_config_file

SIZE = 96
POSE = Pose((40, 38), 44, turns={"left upper arm": -1.0, "right upper leg": 0.35})


def annotation(pose):
    seen = render(pose, SIZE, SIZE)
    entry = annotate(np.random.default_rng(0), seen, seen.part >= 0)
    return seen, entry | {"bbox_mode": BoxMode.XYWH_ABS}


@pytest.fixture(scope="module")
def symmetry():
    return Symmetry(*symmetry_tables())


def worst(target, seen):
    """Share of points with another chart than the picture has there, and the largest distance of the others."""
    column, row = target.x.numpy().astype(int), target.y.numpy().astype(int)
    same = target.label.numpy() == seen.label[row, column]
    apart = [np.abs(getattr(target, name).numpy() - getattr(seen, name)[row, column])[same] for name in "uv"]
    return 1 - same.mean(), max(values.max() for values in apart)


def coarse_agreement(target, seen):
    """Share of cells of the box with the picture's coarse part."""
    x0, y0, x1, y1 = target.box.tolist()
    line = (np.arange(256) + 0.5) / 256
    column, row = (x0 + line * (x1 - x0)).astype(int), (y0 + line * (y1 - y0)).astype(int)
    return (target.coarse.numpy() == COARSE_OF_CHART[seen.label][row[:, None], column]).mean()


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("flip", [False, True])
def test_points_lie_where_the_moved_picture_has_them(symmetry, flip, back):
    pose = Pose(POSE.center, POSE.scale, back, POSE.turns)
    _, entry = annotation(pose)
    target = read_target(entry, T.TransformList([T.HFlipTransform(SIZE)] if flip else []), symmetry)
    seen = render(pose.mirrored(SIZE), SIZE, SIZE) if flip else render(pose, SIZE, SIZE)
    share, distance = worst(target, seen)
    assert share == 0 and distance < 0.006
    assert coarse_agreement(target, seen) == 1


def test_a_flip_that_forgets_symmetry_is_seen(symmetry):
    """The same check finds it, whichever of labels, coordinates and coarse parts stays behind."""
    _, entry = annotation(POSE)
    flip = T.TransformList([T.HFlipTransform(SIZE)])
    seen = render(POSE.mirrored(SIZE), SIZE, SIZE)

    class Forgets(Symmetry):
        def mirror(self, label, u, v):
            return label, u, v

    class ForgetsCoordinates(Symmetry):
        def mirror(self, label, u, v):
            return super().mirror(label, u, v)[0], u, v

    assert worst(read_target(entry, flip, Forgets(*symmetry_tables())), seen)[0] > 0.5
    assert worst(read_target(entry, flip, ForgetsCoordinates(*symmetry_tables())), seen)[1] > 0.5
    exchanged = [table.transpose(0, 2, 1) for table in symmetry_tables()]
    assert worst(read_target(entry, flip, Symmetry(*exchanged)), seen)[1] > 0.2
    plain = read_target(entry, T.TransformList([]), symmetry)
    assert coarse_agreement(plain, seen) < 0.9
    with pytest.raises(ValueError, match="mirrored.*table"):
        read_target(entry, flip, None)


def test_points_follow_crop_and_resize(symmetry):
    seen, entry = annotation(POSE)
    x, y, width, height = entry["bbox"]
    crop = T.CropTransform(x + 7, y + 5, width - 12, height - 9)
    target = read_target(
        entry, T.TransformList([crop, T.ScaleTransform(height - 9, width - 12, 200, 160)]), symmetry
    )
    back_x, back_y = target.x * (width - 12) / 160 + x + 7, target.y * (height - 9) / 200 + y + 5
    column, row = back_x.numpy().astype(int), back_y.numpy().astype(int)
    assert (seen.label[row, column] == target.label.numpy()).all()
    box = torch.tensor([-7 * 160 / (width - 12), -5 * 200 / (height - 9)])
    torch.testing.assert_close(target.box[:2], box, atol=1e-3, rtol=0)
    assert target.box[2] > 160 and target.box[3] > 200  # the crop does not cut it


class QuarterTurn(T.NoOpTransform):
    def apply_coords(self, coords):
        return coords[:, ::-1]


def test_a_half_turn_shows_the_same_side(symmetry):
    seen, entry = annotation(POSE)
    target = read_target(entry, T.TransformList([T.HFlipTransform(SIZE), T.VFlipTransform(SIZE)]), symmetry)
    column, row = target.x.numpy().astype(int), target.y.numpy().astype(int)
    for name in ("label", "u", "v"):
        there = getattr(seen, name)[::-1, ::-1][row, column]
        np.testing.assert_allclose(getattr(target, name), there, atol=1e-6)


def test_a_turned_image_is_refused(symmetry):
    with pytest.raises(ValueError, match="rotation"):
        read_target(annotation(POSE)[1], T.TransformList([QuarterTurn()]), symmetry)


def test_masks_may_be_missing():
    _, entry = annotation(Pose(POSE.center, POSE.scale))
    masks = [[], *entry["dp_masks"][1:]]
    assert set(np.unique(coarse_mask(entry["dp_masks"]))) - set(np.unique(coarse_mask(masks))) == {1}


def test_targets_are_a_field_of_instances():
    targets = DensePoseTargets([None, None, None])
    targets.people[2] = "third"
    assert targets[torch.tensor([False, True, True])].people == [None, "third"]
    assert targets[torch.tensor([2, 2])].people == ["third", "third"]
    assert targets[[]].people == targets[torch.tensor([], dtype=torch.long)].people == []
    assert len(targets[:2]) == 2 and targets[2].people == ["third"]


@pytest.fixture
def cfg(toy_root):
    cfg = get_cfg()
    add_densepose_config(cfg)
    merge_config(cfg, get_config_file("toy/densepose_rcnn_R_18_FPN"), [])
    return cfg


def test_the_mapper_of_training_is_chosen_by_the_config(cfg):
    assert isinstance(build_mapper(cfg, is_train=True), DensePoseMapper)
    assert not isinstance(build_mapper(cfg, is_train=False), DensePoseMapper)
    cfg.MODEL.DENSEPOSE_ON = False
    assert not isinstance(build_mapper(cfg, is_train=True), DensePoseMapper)


def test_records_become_instances(cfg, toy_root):
    """A person that has boxes only, and a crowd, are among the records."""
    record = copy.deepcopy(DatasetCatalog.get("moco_densepose_toy_train")[0])
    bare = {key: record["annotations"][0][key] for key in ("bbox", "bbox_mode", "category_id")} | {
        "iscrowd": 0
    }
    record["annotations"] = [bare, *record["annotations"], bare | {"iscrowd": 1}]
    before = json.dumps(record, default=str)
    cfg.INPUT.RANDOM_FLIP = "none"
    mapped = DensePoseMapper(cfg)(record)
    assert json.dumps(record, default=str) == before
    instances = mapped["instances"]
    assert mapped["image"].dtype == torch.uint8 and "annotations" not in mapped
    people = instances.gt_densepose.people
    assert len(people) == len(instances) == len(record["annotations"]) - 1 and people[0] is None
    torch.testing.assert_close(people[1].box, instances.gt_boxes.tensor[1], atol=1e-3, rtol=0)


def test_people_outside_of_a_crop_are_left_out(cfg):
    record = copy.deepcopy(DatasetCatalog.get("moco_densepose_toy_train")[0])
    inside = record["annotations"][0]
    record["annotations"].append(inside | {"bbox": [record["width"] + 5.0, 5.0, 20.0, 20.0]})
    instances = DensePoseMapper(cfg)(record)["instances"]
    assert len(instances) == len(instances.gt_densepose) == len(record["annotations"]) - 1


def test_data_sets_of_two_bodies_are_refused(cfg):
    MetadataCatalog.get("another_body").symmetry = "other.npz"
    cfg.DATASETS.TRAIN = ("moco_densepose_toy_train", "another_body")
    try:
        with pytest.raises(ValueError, match="expected data sets of one body"):
            DensePoseMapper(cfg)
    finally:
        MetadataCatalog.remove("another_body")
