import numpy as np
import pytest
from PIL import Image

from moco_det.data.datasets.toy_classes import TOY_CLASSES
from moco_det.toyworld import procedural
from moco_det.toyworld.art import Background, Sprite
from moco_det.toyworld.procedural import ProceduralArt
from moco_det.toyworld.scenes import MIN_VISIBLE, ONE_LARGE, SEVERAL, Recipe, compose
from moco_det.toyworld.textures import PATTERNS, Material
from moco_det.utils.seeding import numpy_generator

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
    """One color per class, black behind them: a pixel tells what is there."""

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
    assert counts == {1, 2, 3}
    for scene in scenes(ONE_LARGE):
        (placed,) = scene.objects
        assert 0.8 * 64 - 1 <= max(placed.sprite.mask.shape) <= 1.05 * 64 + 1


def test_the_first_object_is_of_the_class_asked_for_and_in_front():
    for scene in scenes(CROWD, first="car"):
        front = scene.objects[0]
        assert front.category == "car"
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
def test_sprites_fill_the_side_asked_for(category, side):
    for index in range(10):
        mask = ProceduralArt().sprite(numpy_generator(0, category, index), category, side).mask
        height, width = mask.any(axis=1).sum(), mask.any(axis=0).sum()
        # A pixel belongs to the object when half covered, so the tip of a beak may not show.
        assert side - 5 <= max(height, width) <= side + 1
        assert mask.shape[0] - height <= 5 and mask.shape[1] - width <= 5


def portraits(seed, category, species, count, monkeypatch):
    """Individuals of one sub-kind, seen from the front; 40x40x4 each, float."""
    monkeypatch.setattr(procedural, "_view", lambda rng: np.eye(2))

    class OneSpecies:
        """A generator whose choice of the sub-kind is settled."""

        def __init__(self, rng):
            self._rng = rng

        def integers(self, high):
            return species

        def __getattr__(self, name):
            return getattr(self._rng, name)

    art = ProceduralArt(seed)
    sprites = [art.sprite(OneSpecies(numpy_generator(5, category, i)), category, 40) for i in range(count)]
    return np.stack([np.asarray(Image.fromarray(s.rgba).resize((40, 40)), dtype=float) for s in sprites])


@pytest.mark.parametrize("category", TOY_CLASSES)
def test_individuals_of_a_sub_kind_are_alike_and_sub_kinds_differ(category, monkeypatch):
    one, other = (portraits(0, category, species, 6, monkeypatch) for species in (0, 1))
    within = np.mean([np.abs(group - group.mean(axis=0)).mean() for group in (one, other)])
    assert 0 < within < 0.7 * np.abs(one.mean(axis=0) - other.mean(axis=0)).mean()


def test_a_world_has_sub_kinds_of_its_own(monkeypatch):
    assert not np.array_equal(
        portraits(0, "fish", 3, 1, monkeypatch), portraits(1, "fish", 3, 1, monkeypatch)
    )


def test_outlines_tell_the_kinds_apart():
    """Nearest silhouette of other individuals, without any color: far above the one in twelve of chance."""
    art, masks, kinds = ProceduralArt(), [], []
    for category in TOY_CLASSES:
        for index in range(40):
            mask = art.sprite(numpy_generator(1, category, index), category, 24).mask
            square = np.zeros((26, 26))
            square[: mask.shape[0], : mask.shape[1]] = mask[:26, :26]
            masks.append(square.ravel())
            kinds.append(category)
    masks, kinds = np.stack(masks), np.array(kinds)
    area = masks.sum(axis=1)  # masks hold 0 and 1, so |a - b|^2 = |a| + |b| - 2 a b
    distance = area[:, None] + area - 2 * masks @ masks.T + 1e9 * np.eye(len(masks))
    assert np.mean(kinds[distance.argmin(axis=1)] == kinds) > 0.4


def test_a_pattern_is_the_same_wherever_the_object_lies():
    """Coordinates are the object's: two sizes of a sprite show the same colors at the same place."""
    paint = Material(np.zeros(3, np.float32), np.ones(3, np.float32), "stripes", 3.0, 0.4)
    u, v = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9))
    fine_u, fine_v = np.meshgrid(np.linspace(-1, 1, 17), np.linspace(-1, 1, 17))
    np.testing.assert_allclose(paint.at(u, v), paint.at(fine_u, fine_v)[::2, ::2], atol=1e-6)


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_mix_both_colors(name):
    paint = Material(np.zeros(3, np.float32), np.ones(3, np.float32), name, 3.0, 0.0)
    u, v = np.meshgrid(np.linspace(-1, 1, 64, dtype=np.float32), np.linspace(-1, 1, 64, dtype=np.float32))
    found = paint.at(u, v)
    assert (
        found.shape == (64, 64, 3)
        and found.dtype == np.float32
        and 0 <= found.min() < 0.01
        and found.max() <= 1
    )
    assert (found.std() > 0.15) == (name != "plain")
