"""INPUT.DECODE fast: the crops of exact from fewer pixels, and views that differ from its little, by numbers."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from moco_det.data.decoding import UnreadableImage, decode_pixels
from moco_det.data.fast_jpeg import check_decoder, decode_for_views, reduced_view, reduction
from moco_det.data.image_format import ImageFormat
from moco_det.data.views import ViewParameters, ViewSettings, crop_view, draw_view
from moco_det.pretrain.loader import TwoViews
from moco_det.speed.images import write_photographs
from moco_det.utils.seeding import numpy_generator

SIZE = 64  # of a view
EXACT, FAST = (ViewSettings("v2", SIZE, (0.2, 1.0), decode=decode) for decode in ("exact", "fast"))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> list[str]:
    """Pictures of 500 x 375 px with the spectrum of photographs."""
    return write_photographs(tmp_path_factory.mktemp("photographs"), 24)


def drawn(number: int, views: ViewSettings = EXACT):
    """What samples an image's two views by its size."""
    return lambda width, height: [
        draw_view(numpy_generator(0, "view", number, view), width, height, views, view) for view in range(2)
    ]


def view_of(size: int, *crop: int) -> ViewParameters:
    return ViewParameters(size, (), crop, None, False, None, False, False)


def test_an_image_is_reduced_as_far_as_each_crop_keeps_the_pixels_of_its_view():
    whole, half = view_of(64, 0, 0, 512, 600), view_of(64, 3, 5, 129, 128)
    assert [reduction([whole]), reduction([whole, half])] == [8, 2]
    assert [reduction([view_of(64, 0, 0, *sides)]) for sides in ((511, 900), (900, 255), (127, 900))] == [
        4,
        2,
        1,
    ]
    assert reduction([whole, view_of(96, 0, 0, 100, 100)]) == 1


@pytest.mark.parametrize("by", [1, 2, 4, 8])
def test_a_reduced_crop_covers_the_same_part_of_the_image(by):
    rng = np.random.default_rng(by)
    for _ in range(200):
        height, width = rng.integers(by * 4, 400, 2)
        top, left = rng.integers(0, height - by * 3), rng.integers(0, width - by * 3)
        crop = tuple(
            map(int, (top, left, rng.integers(by, height - top + 1), rng.integers(by, width - left + 1)))
        )
        y, x, h, w = reduced_view(view_of(1, *crop), by).crop
        assert (
            min(y, x) >= 0
            and h >= crop[2] // by
            and w >= crop[3] // by
            and y + h <= -(-height // by)
            and x + w <= -(-width // by)
        )
        edges = np.array([y, x, y + h, x + w]) * by
        assert np.abs(edges - [crop[0], crop[1], crop[0] + crop[2], crop[1] + crop[3]]).max() <= by / 2


def test_views_are_those_of_all_pixels_within_the_stated_distribution(photographs):
    """What docs/PERFORMANCE.md says: signal to noise, means, contrast and sharpness of the views."""
    reductions, noise, statistics = set(), [], []
    for number, path in enumerate(photographs):
        found, (expected, views) = (decode_for_views(path, s, drawn(number)) for s in (FAST, EXACT))
        assert torch.equal(expected, decode_pixels(path)) and views == drawn(number)(500, 375)
        reductions.add(round(375 / found[0].shape[1]))
        for fast_view, exact_view in zip(found[1], views, strict=True):
            assert fast_view.photometric_row() == exact_view.photometric_row()
            pair = [crop_view(*given).float() for given in ((found[0], fast_view), (expected, exact_view))]
            noise.append(float((pair[0] - pair[1]).square().mean()))
            statistics.append([_statistics(view) for view in pair])
    assert reductions == {2, 4}
    assert _decibels(np.mean(noise)) > 30 and _decibels(max(noise)) > 25
    fast, exact = np.array(statistics).swapaxes(0, 1)  # each viewsx3
    assert np.abs(fast - exact)[:, 0].max() < 1  # pixel values
    assert np.abs(fast / exact - 1)[:, 1].max() < 0.03
    assert np.abs((fast / exact).mean(axis=0) - 1).max() < 0.05


def _statistics(view: torch.Tensor) -> tuple[float, float, float]:
    """Mean, contrast, and the mean step from a pixel to its neighbor."""
    return float(view.mean()), float(view.std()), float(view.diff(dim=-1).abs().mean())


def _decibels(squares: float) -> float:
    return 10 * np.log10(255**2 / squares)


def test_an_image_that_is_not_reduced_is_decoded_nearly_the_same(photographs):
    views = ViewSettings("v2", 224, (0.2, 1.0), decode="fast")
    for number, path in enumerate(photographs[:4]):
        found, parameters = decode_for_views(path, views, drawn(number, views))
        expected = decode_pixels(path)
        assert found.shape == expected.shape and parameters == drawn(number, views)(500, 375)
        assert _decibels(float((found.float() - expected.float()).square().mean())) > 35


def test_the_loader_gives_the_views_of_either_way(photographs):
    for settings in (EXACT, FAST):
        item = TwoViews(photographs, seed=3, views=settings, finished=False)[2, 5]
        views = [numpy_generator(3, "view", 2, 5, view) for view in range(2)]
        pixels, parameters = decode_for_views(
            photographs[5],
            settings,
            lambda width, height, g=views, s=settings: [
                draw_view(g[v], width, height, s, v) for v in range(2)
            ],
        )
        assert torch.equal(item["query"], crop_view(pixels, parameters[0]))
        assert torch.equal(item["key"], crop_view(pixels, parameters[1]))


def test_other_files_are_decoded_exactly(tmp_path, photographs):
    """Gray, turned by EXIF, of four channels, no JPEG at all."""
    image = Image.open(photographs[0])
    exif = Image.Exif()
    exif[0x0112] = 6
    image.convert("L").save(tmp_path / "gray.jpg")
    image.save(tmp_path / "turned.jpg", exif=exif)
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.save(tmp_path / "really.jpg", format="PNG")
    for path in tmp_path.iterdir():
        pixels, views = decode_for_views(str(path), FAST, drawn(0))
        assert torch.equal(pixels, decode_pixels(str(path))) and views == drawn(0)(*pixels.shape[:0:-1])


def test_pixels_of_another_range_are_decoded_exactly(photographs):
    image_format = ImageFormat(3, (0.0, 200.0))
    settings = dataclasses.replace(FAST, image_format=image_format)
    pixels, _ = decode_for_views(photographs[0], settings, drawn(0))
    assert torch.equal(pixels, image_format.decode(photographs[0])) and pixels.shape == (3, 375, 500)


def test_a_broken_file_is_refused_as_exact_refuses_it(tmp_path, photographs):
    content = Path(photographs[0]).read_bytes()
    for name, part in (
        ("cut.jpg", content[: len(content) // 2]),
        ("empty.jpg", b""),
        ("header.jpg", content[:200]),
    ):
        (tmp_path / name).write_bytes(part)
        refusals = []
        for settings in (EXACT, FAST):
            with pytest.raises(UnreadableImage) as refusal:
                decode_for_views(str(tmp_path / name), settings, drawn(0))
            refusals.append(str(refusal.value))
        assert refusals[0] == refusals[1]


def test_a_missing_library_is_named_before_the_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    check_decoder("exact")
    with pytest.raises(ValueError, match="simplejpeg is not installed; install it: pip .*give 'exact'"):
        check_decoder("fast")
