"""Decoding each kind of file to the pixels it shows."""

import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from torchvision.transforms import functional as F

from moco_det.data.decoding import BACKGROUND, UnreadableImage, decode_pixels, decode_rgb

# Four quadrants, 24 x 16 pixels: upside down, mirrored or with swapped channels it is another image.
RED, GREEN, BLUE, WHITE = (220, 30, 20), (20, 200, 40), (30, 40, 210), (250, 250, 250)


def quadrants() -> Image.Image:
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :12], pixels[:8, 12:], pixels[8:, :12], pixels[8:, 12:] = RED, GREEN, BLUE, WHITE
    return Image.fromarray(pixels)


def decoded(path) -> np.ndarray:
    image = decode_rgb(str(path))
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def assert_shows(pixels: np.ndarray, expected, tolerance: float = 0) -> None:
    """Same size, and no channel of any quadrant's middle further off than ``tolerance``."""
    expected = np.asarray(expected).astype(int)
    assert pixels.shape == expected.shape
    middle = np.ix_([4, 12], [6, 18])  # away from the edges, where JPEG smears
    assert np.abs(pixels[middle] - expected[middle]).max() <= tolerance


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.ppm", "a.tif", "a.gif"])
def test_lossless_rgb_is_exact(name, tmp_path):
    quadrants().save(tmp_path / name)
    assert (decoded(tmp_path / name) == np.asarray(quadrants())).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.webp"])
def test_lossy_rgb_is_close(name, tmp_path):
    quadrants().save(tmp_path / name, quality=95)
    assert_shows(decoded(tmp_path / name), quadrants(), tolerance=6)


def test_content_decides_not_the_name(tmp_path):
    quadrants().save(tmp_path / "really_png.jpg", format="PNG")
    assert (decoded(tmp_path / "really_png.jpg") == np.asarray(quadrants())).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_grayscale(name, tmp_path):
    gray = quadrants().convert("L")
    gray.save(tmp_path / name, quality=95)
    assert_shows(decoded(tmp_path / name), np.stack([np.asarray(gray)] * 3, axis=-1), tolerance=2)


def test_one_bit(tmp_path):
    bits = Image.fromarray(np.asarray(quadrants())[..., 0] > 100)
    assert bits.mode == "1"
    bits.save(tmp_path / "a.png")
    expected = np.repeat(np.where(np.asarray(bits), 255, 0)[..., None], 3, axis=2)
    assert (decoded(tmp_path / "a.png") == expected).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk(name, tmp_path):
    # JPEG: Pillow writes Adobe's marker and the inverted inks, as Photoshop does.
    quadrants().convert("CMYK").save(tmp_path / name, quality=95)
    assert Image.open(tmp_path / name).mode == "CMYK"
    assert_shows(decoded(tmp_path / name), quadrants(), tolerance=8)


def test_palette(tmp_path):
    paletted = quadrants().quantize(4)
    assert paletted.mode == "P"
    paletted.save(tmp_path / "a.png")
    assert (decoded(tmp_path / "a.png") == np.asarray(paletted.convert("RGB"))).all()
    assert_shows(decoded(tmp_path / "a.png"), quadrants(), tolerance=2)


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_palette_with_a_transparent_entry_is_laid_over_the_background(name, tmp_path):
    paletted = quadrants().quantize(4)
    paletted.save(tmp_path / name, transparency=paletted.getpixel((0, 0)))
    expected = np.array(quadrants())
    expected[:8, :12] = BACKGROUND
    assert_shows(decoded(tmp_path / name), expected, tolerance=2)


def test_alpha_is_blended_with_the_background(tmp_path):
    alpha = np.full((16, 24), 255, np.uint8)
    alpha[:8, :12], alpha[:8, 12:] = 0, 51  # a fifth
    image = quadrants()
    image.putalpha(Image.fromarray(alpha))
    image.save(tmp_path / "a.png")
    expected = np.asarray(quadrants()).astype(float)
    expected[:8, :12] = BACKGROUND
    expected[:8, 12:] = 0.2 * np.array(GREEN) + 0.8 * np.array(BACKGROUND)
    assert_shows(decoded(tmp_path / "a.png"), expected.round(), tolerance=1)


def test_gray_with_alpha(tmp_path):
    pixels = np.array([[[200, 255], [200, 0]]], np.uint8)  # opaque, transparent
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert decoded(tmp_path / "a.png").tolist() == [[[200, 200, 200], list(BACKGROUND)]]


def test_color_key_of_an_rgb_png_is_transparent(tmp_path):
    quadrants().save(tmp_path / "a.png", transparency=BLUE)
    expected = np.array(quadrants())
    expected[8:, :12] = BACKGROUND
    assert (decoded(tmp_path / "a.png") == expected).all()


@pytest.mark.parametrize("name", ["a.jpg", "a.tif", "a.png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(name, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    quadrants().save(tmp_path / name, exif=exif, quality=95)
    # Which corner of the upright image holds the stored image's first row and column (EXIF 2.3, table 6).
    stored = np.asarray(quadrants())
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.transpose(1, 0, 2),
        6: stored.transpose(1, 0, 2)[:, ::-1],
        7: stored[::-1, ::-1].transpose(1, 0, 2),
        8: stored.transpose(1, 0, 2)[::-1],
    }[orientation]
    pixels = decoded(tmp_path / name)
    assert pixels.shape == upright.shape
    height, width = upright.shape[:2]
    middle = np.ix_([height // 4, 3 * height // 4], [width // 4, 3 * width // 4])
    assert np.abs(pixels[middle] - upright[middle].astype(int)).max() <= 6


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\xff", 9])
def test_broken_metadata_does_not_cost_the_image(exif, tmp_path):
    if exif == 9:  # orientations end at 8
        exif = Image.Exif()
        exif[0x0112] = 9
    quadrants().save(tmp_path / "a.jpg", quality=95, exif=exif)
    assert_shows(decoded(tmp_path / "a.jpg"), quadrants(), tolerance=6)


RAMP = np.array([[0, 257, 1000, 32768, 65279, 65535]], np.uint16)  # exact multiples of 257 at both ends


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.ppm"])
def test_16_bit_gray_is_scaled_not_clipped(name, tmp_path):
    if name == "a.ppm":
        (tmp_path / name).write_bytes(b"P5 6 1 65535\n" + RAMP.astype(">u2").tobytes())
    else:
        Image.fromarray(RAMP).save(tmp_path / name)
    assert decoded(tmp_path / name)[0].tolist() == [[v] * 3 for v in (0, 1, 4, 128, 254, 255)]


def test_big_endian_16_bit_tiff(tmp_path):
    Image.frombytes("I;16B", (6, 1), RAMP.astype(">u2").tobytes()).save(tmp_path / "a.tif")
    assert Image.open(tmp_path / "a.tif").mode == "I;16B"
    assert decoded(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 1, 4, 128, 254, 255]


def test_32_bit_integers_are_scaled_from_16_bits_and_clipped_beyond(tmp_path):
    Image.fromarray(np.array([[-5, 32768, 65535, 10**6]], np.int32)).save(tmp_path / "a.tif")
    assert decoded(tmp_path / "a.tif")[0, :, 2].tolist() == [0, 128, 255, 255]


# ---- files that cannot be read -----------------------------------------------------------------------


def assert_unreadable(path, reason):
    with pytest.raises(UnreadableImage, match=reason) as caught:
        decode_rgb(str(path))
    assert caught.value.path == str(path)
    assert "\n" not in caught.value.reason and "\t" not in caught.value.reason


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.webp", "a.tif", "a.ppm"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_is_an_error(name, share, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(share * len(data))])
    assert_unreadable(tmp_path / name, "cannot read image")
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_other_unreadable_files(tmp_path, monkeypatch):
    (tmp_path / "empty.jpg").write_bytes(b"")
    assert_unreadable(tmp_path / "empty.jpg", "empty file")
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    assert_unreadable(tmp_path / "page.jpg", "not an image of a known format")
    assert_unreadable(tmp_path / "vanished.jpg", "no such file")
    (tmp_path / "folder.jpg").mkdir()
    assert_unreadable(tmp_path / "folder.jpg", "IsADirectoryError")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert_unreadable(tmp_path / "pipe.jpg", "a pipe or device")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    assert_unreadable(tmp_path / "link.jpg", "no such file")
    (tmp_path / "circle.jpg").symlink_to(tmp_path / "circle.jpg")
    assert_unreadable(tmp_path / "circle.jpg", "symbolic links")
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "float.tif")
    assert_unreadable(tmp_path / "float.tif", "floating-point pixels have no stated range")
    (tmp_path / "script.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    assert_unreadable(tmp_path / "script.jpg", "not an image of a known format")
    quadrants().save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert_unreadable(tmp_path / "bomb.png", "DecompressionBombError")


def test_unreadable_image_crosses_processes():
    error = pickle.loads(pickle.dumps(UnreadableImage("a.jpg", "empty file")))
    assert (error.path, error.reason) == ("a.jpg", "empty file")
    assert str(error) == "cannot read image 'a.jpg': empty file"


# ---- pixels: the same, faster --------------------------------------------------------------------------


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _jpeg(path, mode="RGB", **how):
    noise = np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((101, 75), Image.BICUBIC).convert(mode).save(path, "JPEG", **how)


@pytest.mark.parametrize(
    ("mode", "how"),
    [
        ("RGB", {"quality": 90}),
        ("RGB", {"quality": 75, "subsampling": 0}),
        ("RGB", {"quality": 40, "subsampling": 1, "progressive": True}),
        ("L", {}),
        ("CMYK", {}),
        ("RGB", {"exif": _turned(6)}),
        ("RGB", {"exif": _turned(1)}),
    ],
)
def test_pixels_are_those_of_pillow(tmp_path, mode, how):
    _jpeg(tmp_path / "x.jpg", mode, **how)
    pixels, image = decode_pixels(str(tmp_path / "x.jpg")), decode_rgb(str(tmp_path / "x.jpg"))
    assert torch.equal(pixels, F.pil_to_tensor(image))
    assert pixels.permute(1, 2, 0).is_contiguous()


def test_pixels_of_other_formats_and_of_broken_files(tmp_path):
    Image.new("RGBA", (4, 3), (200, 10, 0, 128)).save(tmp_path / "x.png")
    assert torch.equal(
        decode_pixels(str(tmp_path / "x.png")), F.pil_to_tensor(decode_rgb(str(tmp_path / "x.png")))
    )
    _jpeg(tmp_path / "cut.jpg")
    whole = (tmp_path / "cut.jpg").read_bytes()
    for length in (0, 2, 100, len(whole) // 2, len(whole) - 2):
        (tmp_path / "cut.jpg").write_bytes(whole[:length])
        reasons = []
        for decode in (decode_rgb, decode_pixels):
            with pytest.raises(UnreadableImage) as caught:
                decode(str(tmp_path / "cut.jpg"))
            reasons.append(caught.value.reason)
        assert reasons[0] == reasons[1]
