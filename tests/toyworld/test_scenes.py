import numpy as np
import pytest

from moco_det.seeding import numpy_generator
from moco_det.toy_classes import TOY_CLASSES
from moco_det.toyworld.art import Background, Sprite
from moco_det.toyworld.procedural import ProceduralArt
from moco_det.toyworld.scenes import MIN_VISIBLE, ONE_LARGE, SEVERAL, Recipe, compose
from moco_det.toyworld.shapes import shape_mask

CROWD = Recipe(count=(6, 6), side=(0.4, 0.7), overhang=0.25)


def scenes(recipe, count=12, size=64, first=None):
    art = ProceduralArt()
    return [compose(numpy_generator(3, "test", i), art, size, recipe, first) for i in range(count)]


def painted_numbers(scene):
    """Slow oracle: per pixel the number of the object seen there (-1: none), painted from back to front."""
    size = len(scene.image)
    seen = np.full((size, size), -1)
    for number in reversed(range(len(scene.objects))):
        placed = scene.objects[number]
        alpha = placed.sprite.rgba[..., 3]
        for row in range(alpha.shape[0]):
            for column in range(alpha.shape[1]):
                y, x = placed.top + row, placed.left + column
                if 0 <= y < size and 0 <= x < size and alpha[row, column] >= 128:
                    seen[y, x] = number
    return seen


def test_visible_masks_boxes_and_shares_agree_with_painting_over():
    hidden = 0
    for scene in scenes(CROWD):
        seen = painted_numbers(scene)
        for number, placed in enumerate(scene.objects):
            assert np.array_equal(placed.visible, seen == number)
            rows, columns = np.nonzero(seen == number)
            assert placed.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            share = len(rows) / (placed.sprite.rgba[..., 3] >= 128).sum()
            assert placed.visible_share == pytest.approx(share)
            assert share >= MIN_VISIBLE
            hidden += share < 0.9
    assert hidden >= 10  # the crowd does occlude


class FlatArt:
    """One colour a class, black behind them: a pixel tells what is there."""

    classes = ("red", "green", "blue")

    def sprite(self, rng, category, side):
        rgba = np.zeros((int(side), int(side * 0.7), 4), dtype=np.uint8)
        rgba[..., self.classes.index(category)] = 200
        rgba[..., 3] = 255
        return Sprite(category, rgba)

    def background(self, rng, size):
        return Background(np.zeros((size, size, 3), dtype=np.float32))


def test_the_image_shows_each_object_where_its_mask_says():
    for index in range(10):
        scene = compose(numpy_generator(0, "flat", index), FlatArt(), 48, CROWD)
        anything = np.zeros((48, 48), dtype=bool)
        for placed in scene.objects:
            channel = FlatArt.classes.index(placed.category)
            pixels = scene.image[placed.visible]
            assert (pixels.argmax(axis=1) == channel).all()
            assert pixels[:, channel].min() > 50
            anything |= placed.visible
        assert scene.image[~anything].max() < 50


def test_objects_are_drawn_over_the_background_of_the_art():
    scene = compose(numpy_generator(0, "flat", 0), FlatArt(), 48, ONE_LARGE, first="green")
    assert [placed.category for placed in scene.objects] == ["green"]
    assert max(scene.objects[0].sprite.mask.shape) >= 0.8 * 48 - 1


def test_recipes_give_the_numbers_and_sizes_they_name():
    counts = {len(scene.objects) for scene in scenes(SEVERAL, count=40)}
    assert counts == {1, 2, 3, 4, 5}
    for scene in scenes(ONE_LARGE):
        (placed,) = scene.objects
        assert 0.8 * 64 - 1 <= max(placed.sprite.mask.shape) <= 1.05 * 64 + 1


def test_the_first_object_is_of_the_class_asked_for_and_in_front():
    for scene in scenes(CROWD, first="heart"):
        front = scene.objects[0]
        assert front.category == "heart"
        inside = front.sprite.mask[max(0, -front.top) :, max(0, -front.left) :]
        inside = inside[: 64 - max(0, front.top), : 64 - max(0, front.left)]
        assert front.visible.sum() == inside.sum()  # only the border hides any of it


def test_the_border_leaves_enough_of_the_object_in_front():
    shares = [scene.objects[0].visible_share for scene in scenes(Recipe((1, 1), (0.4, 0.7), 0.5), count=30)]
    assert min(shares) >= 0.6 and np.mean(np.array(shares) < 0.8) > 0.1


def test_a_scene_is_a_function_of_its_generator():
    one, same, other = scenes(SEVERAL, count=2)[0], scenes(SEVERAL, count=1)[0], scenes(SEVERAL, count=2)[1]
    assert np.array_equal(one.image, same.image)
    assert not np.array_equal(one.image, other.image)


@pytest.mark.parametrize("category", TOY_CLASSES)
@pytest.mark.parametrize("side", [20, 47.3])
def test_silhouettes_fill_the_side_asked_for(category, side):
    for index in range(10):
        mask = np.asarray(shape_mask(numpy_generator(0, category, index), category, side))
        covered = mask >= 128
        height, width = covered.any(axis=1).sum(), covered.any(axis=0).sum()
        assert side - 3 <= max(height, width) <= side + 1
        assert covered.shape[0] - height <= 3 and covered.shape[1] - width <= 3


def test_silhouettes_differ_in_shape():
    """Mean area over the area of the bounding box, and whether the middle is filled, by class."""
    area, middle = {}, {}
    for category in TOY_CLASSES:
        masks = [
            np.asarray(shape_mask(numpy_generator(1, category, i), category, 60)) >= 128 for i in range(30)
        ]
        area[category] = np.mean([mask.mean() for mask in masks])
        middle[category] = np.mean([mask[mask.shape[0] // 2, mask.shape[1] // 2] for mask in masks])
    assert area["disc"] == pytest.approx(np.pi / 4, abs=0.04)
    assert middle["ring"] == 0 and area["ring"] < area["disc"] - 0.12
    assert min(middle[name] for name in TOY_CLASSES if name not in ("ring", "crescent")) == 1
    assert area["star"] < area["cross"] < area["square"]


def test_colour_does_not_tell_the_class():
    art = ProceduralArt()
    means = {}
    for category in ("disc", "star"):
        sprites = [art.sprite(numpy_generator(2, category, i), category, 30) for i in range(150)]
        means[category] = np.mean([sprite.rgba[..., :3].mean(axis=(0, 1)) for sprite in sprites], axis=0)
    assert np.abs(means["disc"] - means["star"]).max() < 20
