import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from moco_det.toyworld.polygons import mask_to_polygons, outline


def rasterise(polygons, shape):
    """What detectron2 makes of polygons: pycocotools' filling, joined."""
    parts = coco_mask.frPyObjects(polygons, *shape)
    return coco_mask.decode(coco_mask.merge(parts)).astype(bool)


def shoelace(polygon):
    x, y = np.array(polygon).reshape(-1, 2).T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def blobs(seed):
    """Overlapping discs with discs cut out: several parts, holes, some at the border."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:60, :80]
    mask = np.zeros((60, 80), dtype=bool)
    for number in range(9):
        cx, cy, radius = rng.uniform(0, 80), rng.uniform(0, 60), rng.uniform(6, 16)
        mask[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = number % 3 != 2
    return mask


@pytest.mark.parametrize("seed", range(8))
def test_polygons_cover_the_mask(seed):
    mask = blobs(seed)
    polygons = mask_to_polygons(mask)
    filled = rasterise(polygons, mask.shape)
    assert (filled & mask).sum() / (filled | mask).sum() > 0.96
    assert sum(map(shoelace, polygons)) == pytest.approx(mask.sum(), rel=0.02)


def test_rectangle_keeps_its_edges():
    mask = np.zeros((20, 30), dtype=bool)
    mask[4:9, 7:27] = True
    (polygon,) = mask_to_polygons(mask)
    points = np.array(polygon).reshape(-1, 2)
    assert points.min(axis=0).tolist() == [7, 4]
    assert points.max(axis=0).tolist() == [27, 9]
    assert np.array_equal(rasterise([polygon], mask.shape), mask)


def test_a_hole_stays_a_hole():
    mask = np.zeros((40, 40), dtype=bool)
    mask[5:35, 5:35] = True
    mask[12:25, 10:30] = False
    (polygon,) = mask_to_polygons(mask)
    filled = rasterise([polygon], mask.shape)
    assert not filled[13:24, 11:29].any()
    assert (filled != mask).sum() <= 8  # the inner corners


def test_parts_at_the_border_become_polygons_of_their_own():
    mask = np.zeros((10, 12), dtype=bool)
    mask[:, :3] = mask[:, 9:] = True
    polygons = mask_to_polygons(mask)
    assert len(polygons) == 2
    assert np.array_equal(rasterise(polygons, mask.shape), mask)
    assert min(map(min, polygons)) == 0 and max(map(max, polygons)) == 12


def test_empty_mask_has_no_polygon():
    assert mask_to_polygons(np.zeros((5, 5), dtype=bool)) == []


@pytest.mark.parametrize("seed", range(3))
def test_an_outline_drawn_as_a_polygon_is_the_part_without_its_holes(seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:60, :60]
    cx, cy, radius = rng.uniform(20, 40), rng.uniform(20, 40), rng.uniform(10, 25)
    distance = np.hypot(x - cx, y - cy)
    ring = (distance <= radius) & (distance > radius / 2)  # may reach beyond the border
    ring[:2, :2] = True  # a smaller part elsewhere
    image = Image.new("1", (60, 60))
    ImageDraw.Draw(image).polygon(outline(ring), fill=1)
    filled = distance <= radius
    assert np.mean(np.array(image) != filled) < 0.002


def test_an_outline_runs_through_the_pixels_at_the_border():
    mask = np.zeros((6, 8), dtype=bool)
    mask[1:4, 2:7] = True
    points = outline(mask)
    assert len(points) == len(set(points)) == 2 * (3 + 5) - 4
    assert {(x, y) for x, y in points} == {
        (x, y) for y in range(1, 4) for x in range(2, 7) if y in (1, 3) or x in (2, 6)
    }
