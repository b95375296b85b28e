"""Test images among those of pre-training, found by their content, and left out there."""

import os

import numpy as np
import own_data
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image, ImageEnhance

from moco_det.data import near_duplicates
from moco_det.data.datasets import own as own_datasets
from moco_det.data.image_files import find_images, without
from moco_det.data.near_duplicates import find_pairs, fingerprint
from moco_det.finetune.check_datasets import main


@pytest.fixture(autouse=True)
def catalogs(monkeypatch):
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "data", dict(catalog.data))
    monkeypatch.setattr(own_datasets, "_registered", {})


def picture(path, seed):
    """Smooth noise of 240 x 180 pixels."""
    small = np.random.default_rng(seed).integers(0, 255, (18, 24, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((240, 180), Image.BICUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return image


def turned_by_exif(image, path):
    """Stored on its side, with the word that it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image.rotate(90, expand=True).save(path.with_suffix(".jpg"), exif=exif)


CHANGES = {
    "turned by EXIF": turned_by_exif,
    "the same file": lambda image, path: image.save(path.with_suffix(".jpg")),
    "a low quality": lambda image, path: image.save(path.with_suffix(".jpg"), quality=25),
    "another format": lambda image, path: image.save(path.with_suffix(".png")),
    "a third of the size": lambda image, path: image.resize((80, 60)).save(
        path.with_suffix(".jpg"), quality=80
    ),
    "half the size, a low quality": lambda image, path: image.resize((120, 90)).save(
        path.with_suffix(".jpg"), quality=50
    ),
    "twice the size": lambda image, path: image.resize((480, 360)).save(path.with_suffix(".jpg")),
    "two percent cut off": lambda image, path: image.crop((4, 0, 240, 177)).save(path.with_suffix(".jpg")),
    "another aspect": lambda image, path: image.resize((96, 96)).save(path.with_suffix(".jpg")),
    "brighter": lambda image, path: ImageEnhance.Brightness(image)
    .enhance(1.1)
    .save(path.with_suffix(".jpg")),
    "gray": lambda image, path: image.convert("L").save(path.with_suffix(".jpg")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(tmp_path, change):
    for seed in range(60):
        image = picture(tmp_path / "test" / f"{seed}.png", seed)
        picture(tmp_path / "seen" / f"{seed}.png", 1000 + seed)
        if seed == 7:
            change(image, tmp_path / "seen" / "copy")
    pairs = find_pairs(find_images(str(tmp_path / "seen")), find_images(str(tmp_path / "test")))
    assert [(one.split("/")[-1].split(".")[0], other.split("/")[-1]) for one, other in pairs] == [
        ("copy", "7.png")
    ]


def plain_texture(seed, light, slope=90):
    """Fine grain, brighter towards one side: steel, asphalt, tissue."""
    rng = np.random.default_rng(seed)
    grain = Image.fromarray(rng.normal(size=(100, 100)).astype(np.float32)).resize((200, 200), Image.BICUBIC)
    ramp = light[0] * np.linspace(-1, 1, 200)[:, None] + light[1] * np.linspace(-1, 1, 200)
    return Image.fromarray((128 + slope * ramp + 10 * np.asarray(grain)).clip(0, 255).astype(np.uint8))


def pairs_of(tmp_path, ones, others):
    paths = []
    for name, images in (("ones", ones), ("others", others)):
        (tmp_path / name).mkdir(exist_ok=True)
        for number, image in enumerate(images):
            image.save(tmp_path / name / f"{number}.png")
        paths.append(find_images(str(tmp_path / name)))
    return [tuple(os.path.basename(path) for path in pair) for pair in find_pairs(*paths)]


def test_plain_textures_under_one_light_are_told_apart(tmp_path, monkeypatch):
    """What a small picture shows of them is the light alone."""
    ones = [plain_texture(seed, (0.3, 1)) for seed in range(8)]
    others = [plain_texture(seed, (0.3, 1)) for seed in range(100, 107)]
    again = ones[3].resize((150, 150), Image.LANCZOS).crop((2, 0, 150, 148))
    assert pairs_of(tmp_path, ones, [*others, again]) == [("3.png", "7.png")]
    monkeypatch.setattr(near_duplicates, "MAX_BITS", 150)
    assert len(pairs_of(tmp_path, ones, others)) > 40


def test_one_texture_under_two_lights_is_not_one_photograph(tmp_path, monkeypatch):
    ones = [plain_texture(seed, (0.2, 1), 60) for seed in range(5)]
    others = [plain_texture(seed, (0.2, -1), 60) for seed in range(5)]
    assert pairs_of(tmp_path, ones, others) == []
    monkeypatch.setattr(near_duplicates, "MIN_CORRELATION", -1)
    assert pairs_of(tmp_path, ones, others) == [(f"{n}.png", f"{n}.png") for n in range(5)]


def test_images_without_content_or_that_cannot_be_read_match_nothing(tmp_path):
    for name, color in (("a", (10, 10, 10)), ("b", (200, 0, 0))):
        Image.new("RGB", (50, 50), color).save(tmp_path / f"{name}.png")
        assert fingerprint(str(tmp_path / f"{name}.png")) is None
    (tmp_path / "c.png").write_bytes(b"x")
    assert find_pairs([str(tmp_path / "c.png")], [str(tmp_path / "a.png")]) == []


def test_the_tool_lists_leaks_and_pretraining_leaves_them_out(tmp_path, capsys):
    labels, images = own_data.coco(tmp_path, "val")
    for seed in range(5):
        picture(tmp_path / "unlabeled" / f"{seed}.jpg", 100 + seed)
    for number in (1, 3):
        with Image.open(tmp_path / f"images/val{number}.jpg") as image:
            image.resize((128, 96)).save(tmp_path / f"unlabeled/copy{number}.jpg", quality=70)
    words = ["--coco", "mine", labels, images, "--leaks-in", str(tmp_path / "unlabeled")]
    with pytest.raises(SystemExit) as end:
        main([*words, "--leaks-list", str(tmp_path / "leaks.txt")])
    text = capsys.readouterr().out
    assert end.value.code == 1 and "2 of 7 images in " in text and "copy1.jpg  shows  " in text
    kept = without(find_images(str(tmp_path / "unlabeled")), str(tmp_path / "leaks.txt"))
    assert [path.rsplit("/", 1)[1] for path in kept] == [f"{seed}.jpg" for seed in range(5)]
    with pytest.raises(SystemExit) as end:
        main([*words[:4], "--leaks-in", str(tmp_path / "unlabeled/0.jpg")])
    assert end.value.code == 2


def test_a_list_of_other_images_is_refused(tmp_path):
    path = str(tmp_path / "a.jpg")
    (tmp_path / "list.txt").write_text("b.jpg\n")
    with pytest.raises(ValueError, match=" 1 images.*'b.jpg'.* 1 images"):
        without([path], str(tmp_path / "list.txt"))
    (tmp_path / "list.txt").write_text("# none\na.jpg\n")
    assert without([path, path + "2"], str(tmp_path / "list.txt")) == [path + "2"]
    with pytest.raises(ValueError, match="does not exist"):
        without([path], "no.txt")
