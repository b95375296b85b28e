"""Files of many channels and depths against one slow formula; what the settings do not fit is named."""

import math
import random
import sys
import tarfile

import numpy as np
import pytest
import torch
from fuzzing import mutated_bytes
from PIL import Image

from moco_det.data.decoding import UnfitImage, UnreadableImage, decode_pixels
from moco_det.data.image_files import find_images
from moco_det.data.image_format import ImageFormat, check_images, picture
from moco_det.data.labeled_folder import LabeledFolder
from moco_det.testing.core import tiny_pretrain_config as tiny
from moco_det.testing.core import write_random_images

tifffile = pytest.importorskip("tifffile")
imagecodecs = pytest.importorskip("imagecodecs")


def values(channels, dtype=np.uint16, top=4000, side=(11, 17)):
    """H x W x C; unlike H, W and C, so that none is taken for another."""
    noise = np.random.default_rng(channels).random((*side, channels)) * top
    return noise.astype(dtype)


def slow(array, channels, limits):
    """H x W x C as pixel values C x H x W, number by number."""
    result = np.zeros((channels, *array.shape[:2]), np.uint8)
    for c in range(channels):
        low, high = limits[2 * c : 2 * c + 2] if len(limits) > 2 else limits
        for (y, x), value in np.ndenumerate(array[..., c]):
            level = math.floor((float(value) - low) * 255 / (high - low) + 0.5)
            result[c, y, x] = min(max(level, 0), 255)
    return result


def tiff(path, array, **options):
    tifffile.imwrite(path, array, **{"photometric": "minisblack", **options})


def png(path, array):
    path.write_bytes(imagecodecs.png_encode(array))


def npz(path, array):
    np.savez_compressed(path, array)


WRITERS = {
    "interleaved.tif": lambda p, a: tiff(p, a, planarconfig="contig"),
    "tiled.tif": lambda p, a: tiff(
        p, a, planarconfig="contig", tile=(16, 16), compression="zlib", predictor=2
    ),
    "lzw.tif": lambda p, a: tiff(p, a, planarconfig="contig", rowsperstrip=3, compression="lzw"),
    "zstd.tif": lambda p, a: tiff(p, a, planarconfig="contig", compression="zstd"),
    "planar.tif": lambda p, a: tiff(p, np.moveaxis(a, 2, 0), planarconfig="separate"),
    "pages.tif": lambda p, a: tiff(p, np.moveaxis(a, 2, 0)),
    "big_endian.tif": lambda p, a: tiff(p, a, planarconfig="contig", byteorder=">"),
    "bigtiff.tif": lambda p, a: tiff(p, a, planarconfig="contig", bigtiff=True),
    "last.npy": lambda p, a: np.save(p, a),
    "first.npy": lambda p, a: np.save(p, np.moveaxis(a, 2, 0)),
    "swapped.npy": lambda p, a: np.save(p, a.astype(a.dtype.newbyteorder(">"))),
    "packed.npz": npz,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("channels", [2, 4, 13])
def test_files_of_many_channels(tmp_path, name, channels):
    array = values(channels)
    WRITERS[name](tmp_path / name, array)
    order = "L" if channels < 3 else "RGB"
    found = ImageFormat(channels, (100.0, 3000.0), order).decode(str(tmp_path / name))
    assert found.dtype == torch.uint8 and np.array_equal(found, slow(array, channels, (100, 3000)))
    limits = tuple(float(x) for c in range(channels) for x in (10 * c, 1000 + 200 * c))
    found = ImageFormat(channels, limits, order).decode(str(tmp_path / name))
    assert np.array_equal(found, slow(array, channels, limits))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("name", ["tiled.tif", "last.npy"])
def test_types_of_numbers(tmp_path, dtype, name):
    if dtype == np.float64 and name == "tiled.tif":
        return  # a horizontal predictor of whole numbers
    array = values(4, dtype, 255) - (100 if np.dtype(dtype).kind != "u" else 0)
    array = array.astype(dtype)
    writer = WRITERS[name if np.dtype(dtype).kind != "f" else name.replace("tiled", "interleaved")]
    writer(tmp_path / name, array)
    found = ImageFormat(4, (-50.0, 120.0)).decode(str(tmp_path / name))
    assert np.array_equal(found, slow(array, 4, (-50, 120)))
    full = ImageFormat(4)
    if np.dtype(dtype).kind == "u":
        top = np.iinfo(dtype).max
        assert np.array_equal(full.decode(str(tmp_path / name)), slow(array, 4, (0, top)))
    else:
        with pytest.raises(UnfitImage, match="have no stated range; say with INPUT.RANGE .*--channels 4"):
            full.decode(str(tmp_path / name))


def test_numbers_that_are_none_are_the_lower_end(tmp_path):
    array = np.full((3, 5, 4), 7, np.float32)
    array[0, 0], array[1, 1], array[2, 2] = np.nan, np.inf, -np.inf
    np.save(tmp_path / "a.npy", array)
    found = ImageFormat(4, (5.0, 9.0)).decode(str(tmp_path / "a.npy"))
    assert (found[:, 0, 0] == 0).all() and (found[:, 1, 1] == 255).all() and (found[:, 2, 2] == 0).all()
    assert (found[:, 0, 1] == 128).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png(tmp_path, channels, dtype):
    array = values(channels, dtype, np.iinfo(dtype).max)
    png(tmp_path / "a.png", array[..., 0] if channels == 1 else array)
    limits = (0.0, float(np.iinfo(dtype).max))
    found = ImageFormat(channels, limits, "L").decode(str(tmp_path / "a.png"))
    assert np.array_equal(found, slow(array, channels, limits))
    assert channels == 3 or torch.equal(found, ImageFormat(channels, (), "L").decode(str(tmp_path / "a.png")))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "LA", "RGBA", "I;16", "CMYK"])
def test_plain_images_are_what_they_were(tmp_path, mode):
    gray = Image.fromarray(values(1, np.uint8, 255)[..., 0])
    image = Image.fromarray(values(1)[..., 0] * 16) if mode == "I;16" else gray.convert(mode)
    path = str(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"))
    image.save(path)
    assert torch.equal(ImageFormat().decode(path), decode_pixels(path))
    image = write_random_images(tmp_path, 1)[0]
    assert torch.equal(ImageFormat().decode(str(image)), decode_pixels(str(image)))


def test_gray_fills_three_channels_and_three_equal_ones_are_gray(tmp_path):
    array = values(1, np.uint8, 255)
    Image.fromarray(array[..., 0]).save(tmp_path / "gray.png")
    Image.fromarray(array.repeat(3, 2)).save(tmp_path / "color.png")
    for name in ("gray.png", "color.png"):
        assert np.array_equal(ImageFormat(1, (), "L").decode(str(tmp_path / name))[0], array[..., 0])
        assert np.array_equal(ImageFormat(3, (0.0, 255.0)).decode(str(tmp_path / name))[1], array[..., 0])
    np.save(tmp_path / "rgb.npy", array.repeat(3, 2))  # plain, and none that Pillow reads
    assert np.array_equal(ImageFormat().decode(str(tmp_path / "rgb.npy"))[2], array[..., 0])


def test_the_orientation_is_applied(tmp_path):
    array = values(4, np.uint8, 255)
    tiff(tmp_path / "a.tif", array, planarconfig="contig", extratags=[(274, "H", 1, 6, True)])
    image, image_format = Image.fromarray(array[..., 1]), ImageFormat(4)
    turned = np.asarray(image.transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(image_format.decode(str(tmp_path / "a.tif"))[1], turned)
    assert np.array_equal(image_format.decode(str(tmp_path / "a.tif"), upright=False)[1], array[..., 1])


def test_white_is_zero(tmp_path):
    array = values(1, np.uint8, 255)[..., 0]
    tiff(tmp_path / "a.tif", array, photometric="miniswhite")
    assert np.array_equal(ImageFormat(1, (0.0, 255.0), "L").decode(str(tmp_path / "a.tif"))[0], 255 - array)


def test_places_in_shards(tmp_path):
    array = values(4)
    tiff(tmp_path / "a.tif", array, planarconfig="contig")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "a.tif", "a.tif")
    (tmp_path / "a.tif").unlink()
    (place,) = find_images(str(tmp_path))
    found = ImageFormat(4, (0.0, 4095.0)).decode(place)
    assert np.array_equal(found, slow(array, 4, (0, 4095)))
    with pytest.raises(UnfitImage, match="x.tar/a.tif': has 4 channels"):
        ImageFormat(5, (0.0, 4095.0)).decode(place)


def test_arrays_in_shards_are_images_where_nothing_else_is(tmp_path):
    array = values(4)
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", array)
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in ("a.npy", "b.npz"):
            archive.add(tmp_path / name, name)
            (tmp_path / name).unlink()
    for where in (tmp_path, tmp_path / "x.tar"):
        found = find_images(str(where))
        assert [place.name for place in found] == ["a.npy", "b.npz"]
        for place in found:
            decoded = ImageFormat(4, (0.0, 4095.0)).decode(place)
            assert np.array_equal(decoded, slow(array, 4, (0, 4095)))
    Image.new("RGB", (8, 8)).save(tmp_path / "c.png")
    with tarfile.open(tmp_path / "x.tar", "a") as archive:
        archive.add(tmp_path / "c.png", "c.png")
    (tmp_path / "c.png").unlink()
    assert [place.name for place in find_images(str(tmp_path))] == [
        "c.png"
    ]  # arrays beside images are labels


def test_dicom(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    def write(path, stored, **tags):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
        meta.MediaStorageSOPInstanceUID = generate_uid()
        image = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        image.Rows, image.Columns = stored.shape
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
        image.PixelData = stored.tobytes()
        for name, value in tags.items():
            setattr(image, name, value)
        image.save_as(path, enforce_file_format=True)

    stored = values(1)
    write(tmp_path / "ct.dcm", stored[..., 0], RescaleSlope=2, RescaleIntercept=-1024)
    write(tmp_path / "plain.dcm", stored[..., 0])
    write(tmp_path / "inverted.dcm", stored[..., 0], PhotometricInterpretation="MONOCHROME1")
    assert pydicom and len(find_images(str(tmp_path))) == 3
    found = ImageFormat(1, (-1000.0, 2000.0), "L").decode(str(tmp_path / "ct.dcm"))
    assert np.array_equal(found, slow(2.0 * stored - 1024, 1, (-1000, 2000)))
    gray = ImageFormat(1, (0.0, 4095.0), "L")
    assert np.array_equal(gray.decode(str(tmp_path / "plain.dcm")), slow(stored, 1, (0, 4095)))
    assert np.array_equal(gray.decode(str(tmp_path / "inverted.dcm")), slow(4095 - stored, 1, (0, 4095)))
    with pytest.raises(UnfitImage, match="float64 have no stated range"):
        ImageFormat(1, (), "L").decode(str(tmp_path / "ct.dcm"))


# ---- what does not fit -----------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [[0], None])
def test_a_fourth_band_does_not_vanish(tmp_path, extra):
    """GDAL writes RGB with near infrared so, with and without photometric RGB."""
    array = values(4, np.uint8, 255)
    options = {"photometric": "rgb", "extrasamples": ["unspecified"]} if extra else {}
    tiff(tmp_path / "a.tif", array, planarconfig="contig", **options)
    for check in (ImageFormat().decode, lambda path: check_images([path], ImageFormat())):
        with pytest.raises(ValueError, match="has 4 channels.*give INPUT.CHANNELS 4"):
            check(str(tmp_path / "a.tif"))
    assert np.array_equal(ImageFormat(4).decode(str(tmp_path / "a.tif")), np.moveaxis(array, 2, 0))


def test_transparency_is_still_laid_over_gray(tmp_path):
    array = values(4, np.uint8, 255)
    tiff(tmp_path / "a.tif", array, planarconfig="contig", photometric="rgb", extrasamples=["unassalpha"])
    Image.fromarray(array).save(tmp_path / "a.png")
    assert torch.equal(ImageFormat().decode(str(tmp_path / "a.tif")), decode_pixels(str(tmp_path / "a.png")))


@pytest.mark.parametrize("channels", [1, 3, 4, 12, 16])
def test_other_channels_are_named_with_the_fix(tmp_path, channels):
    tiff(tmp_path / "a.tif", values(13), planarconfig="contig")
    image_format = ImageFormat(channels, (), "L" if channels == 1 else "RGB")
    with pytest.raises(UnfitImage) as error:
        image_format.decode(str(tmp_path / "a.tif"))
    message = f"has 13 channels of 16 bits where INPUT.CHANNELS is {channels}; give INPUT.CHANNELS 13"
    assert message in str(error.value) and "compute_stats.py --channels 13" in str(error.value)
    with pytest.raises(ValueError, match="give INPUT.CHANNELS 13"):
        check_images([str(tmp_path / "a.tif")], image_format)


@pytest.mark.parametrize("kind", ["gray.png", "rgb.tif", "four.tif"])
def test_nearly_black_images_are_refused_with_a_range(tmp_path, kind):
    array = values({"gray.png": 1, "rgb.tif": 3, "four.tif": 4}[kind], top=3000)
    path = str(tmp_path / kind)
    if kind == "gray.png":
        Image.fromarray(array[..., 0]).save(path)
    else:
        tiff(path, array, planarconfig="contig", photometric="rgb" if kind == "rgb.tif" else "minisblack")
    image_format = ImageFormat(4) if kind == "four.tif" else ImageFormat()
    with pytest.raises(ValueError, match=r"nearly black: .* so 1\d of 256 .*RANGE \"\(0, 4095\)\""):
        check_images([path] * 40, image_format)
    check_images([path] * 40, ImageFormat(image_format.channels, (0.0, 65535.0)))
    check_images([path] * 40, ImageFormat(image_format.channels, (0.0, 4095.0)))
    with pytest.raises(ValueError, match="makes all pixels of .* 255 of 0..255"):
        check_images([path], ImageFormat(image_format.channels, (-2.0, -1.0)))


def test_dark_images_of_8_bits_are_as_they_are(tmp_path):
    Image.new("RGB", (8, 8), (3, 2, 1)).save(tmp_path / "a.png")
    tiff(tmp_path / "a.tif", values(4, np.uint8, 20), planarconfig="contig")
    check_images([str(tmp_path / "a.png")], ImageFormat())
    check_images([str(tmp_path / "a.tif")], ImageFormat(4))
    check_images([str(tmp_path / "absent.png")], ImageFormat())  # the run counts it


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (lambda p: np.savez(p / "a", x=values(4), y=values(4)), r"holds the arrays \['x.npy', 'y.npy'\]"),
        (lambda p: np.save(p / "a.npy", np.array([{}])), "allow_pickle=False"),
        (lambda p: np.save(p / "a.npy", np.array([["x"]])), "expected numbers"),
        (lambda p: np.save(p / "a.npy", values(4)[0, 0]), r"shape \(4,\); expected height"),
        (lambda p: (p / "a.npy").write_bytes(b"\x93NUMPY\1\0"), "array header"),
        (lambda p: (p / "a.tif").write_bytes(b"II*\0" + b"\1" * 50), "."),
        (lambda p: (p / "a.dcm").write_bytes(b"\0" * 128 + b"DICM"), "."),
        (lambda p: (p / "a.npy").write_bytes(b""), "empty file"),
        (lambda p: (p / "a.npy").write_bytes(b"x" * 500), "not an image of a known format"),
    ],
)
def test_damaged_files_are_named(tmp_path, write, reason):
    write(tmp_path)
    (path,) = find_images(str(tmp_path))
    for image_format in (ImageFormat(4, (0.0, 1.0)), ImageFormat()):
        with pytest.raises(UnreadableImage, match=reason) as error:
            image_format.decode(path)
        assert path in str(error.value) and "\n" not in str(error.value)


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("moco_det.data.file_values.MAX_VALUES", 700)
    for name in ("tiled.tif", "packed.npz"):
        WRITERS[name](tmp_path / name, values(4))
        if name.endswith("npz"):
            monkeypatch.setattr("moco_det.data.file_values.MAX_VALUES", 100)
        with pytest.raises(UnreadableImage, match="more than the limit of"):
            ImageFormat(4).decode(str(tmp_path / name))


@pytest.mark.parametrize(
    ("module", "name", "extra"), [("tifffile", "tiled.tif", "bands"), ("imagecodecs", "a.png", "bands")]
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, module, name, extra):
    WRITERS.get(name, png)(tmp_path / name, values(4))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnreadableImage, match=rf"pip install 'moco_det\[{extra}\]'"):
        ImageFormat(4).decode(str(tmp_path / name))


def test_a_missing_dicom_package_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 50)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UnreadableImage, match=r"pip install 'moco_det\[dicom\]'"):
        ImageFormat(1, (), "L").decode(str(tmp_path / "a.dcm"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"CHANNELS": 4}, "MODEL.PIXEL_MEAN has 3 numbers.*--channels 4 --range measured"),
        ({"RANGE": (5, 1)}, r"INPUT.RANGE is \[5.0, 1.0\] with 3 channels"),
        ({"RANGE": (0, 1, 0, 1)}, "two such numbers for each in turn"),
        ({"RANGE": (0, 1, 2)}, "a lowest and a higher highest"),
        ({"RANGE": (0, float("nan"))}, "a lowest and a higher highest"),
    ],
)
def test_settings_that_do_not_fit_each_other(keys, message):
    cfg = tiny()
    for key, value in keys.items():
        cfg.INPUT[key] = value
    with pytest.raises(ValueError, match=message):
        ImageFormat.from_config(cfg)


def test_fewer_than_three_channels_have_no_colors():
    cfg = tiny()
    cfg.INPUT.CHANNELS, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = 1, [9.0], [2.0]
    with pytest.raises(ValueError, match="INPUT.FORMAT is RGB with 1 channel; expected L"):
        ImageFormat.from_config(cfg)
    cfg.INPUT.FORMAT = "L"
    assert ImageFormat.from_config(cfg) == ImageFormat(1, (), "L")


# ---- where images come from, and pictures of them ----------------------------------------------------------


def test_arrays_are_images_where_there_are_no_others(tmp_path):
    for name in ("b.npy", "a.npz"):
        (tmp_path / name).write_bytes(b"")
    assert [path[-5:] for path in find_images(str(tmp_path))] == ["a.npz", "b.npy"]
    write_random_images(tmp_path, 1)
    assert [path[-7:] for path in find_images(str(tmp_path))] == ["000.jpg"]


def test_a_picture_shows_chosen_channels():
    pixels = torch.arange(5, dtype=torch.uint8)[:, None, None].expand(5, 2, 3)
    assert picture(pixels, (4, 1, 3)).getpixel((0, 0)) == (4, 1, 3)
    assert picture(pixels[:1]).getpixel((2, 1)) == (0, 0, 0)
    assert picture(pixels[:2]).getpixel((2, 1)) == (0, 1, 0)
    assert picture(pixels).size == (3, 2)


@pytest.mark.parametrize("channels", [3, 4])
def test_labeled_folders(tmp_path, channels):
    array = values(channels, np.uint8, 255)
    (tmp_path / "cow").mkdir()
    np.save(tmp_path / "cow/a.npy", array)
    folder = LabeledFolder(str(tmp_path), 8, "--images", False, ImageFormat(channels))
    view, label = folder[0]
    expected = [np.asarray(Image.fromarray(array[..., c]).resize((8, 8), 2)) for c in range(channels)]
    assert label == 0 and np.array_equal(view, expected)
    with pytest.raises(ValueError, match=f"has {channels} channels of 8 bits"):
        LabeledFolder(str(tmp_path), 8, "--images", image_format=ImageFormat(5))


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused_in_a_line(tmp_path):
    rng, path, outcomes = random.Random(0), tmp_path / "a", {True: 0, False: 0}
    files = []
    for name, write in WRITERS.items():
        write(tmp_path / name, values(4))
        files.append((tmp_path / name).read_bytes())
    for number in range(400):
        path.write_bytes(mutated_bytes(files[number % len(files)], rng))
        try:
            pixels = ImageFormat(4, (0.0, 4095.0)).decode(str(path))
            assert pixels.dtype == torch.uint8 and len(pixels) == 4 and pixels.ndim == 3
            outcomes[True] += 1
        except UnreadableImage as error:
            assert error.reason and "\n" not in error.reason
            outcomes[False] += 1
    assert min(outcomes.values()) > 40
