import json
import shutil

import numpy as np
import pytest
from PIL import Image

from moco_det.toyworld.cutouts import list_pictures, load_art
from moco_det.toyworld.make import make_toyworld
from moco_det.toyworld.scenes import SEVERAL, compose
from moco_det.utils.seeding import numpy_generator

COUNTS = {
    "num_unlabeled": 6,
    "num_per_class_train": 2,
    "num_per_class_test": 2,
    "num_train": 4,
    "num_test": 4,
    "image_size": 32,
}


def art_of(pictures, image_size=32):
    return load_art(list_pictures(**pictures), image_size)


def test_train_and_test_never_share_a_picture(tmp_path, pictures):
    """All train pictures are red and all test pictures are blue, so the pixels tell."""
    manifest = make_toyworld(tmp_path / "world", **pictures, **COUNTS)
    parts = {
        "train": ["unlabeled/*.jpg", "classes/train/*/*.jpg", "coco/train2017/*.jpg"],
        "test": ["classes/test/*/*.jpg", "coco/val2017/*.jpg"],
    }
    for split, channel in (("train", 0), ("test", 2)):
        for pattern in parts[split]:
            paths = list((tmp_path / "world").glob(pattern))
            assert paths
            for path in paths:
                assert np.asarray(Image.open(path)).mean(axis=(0, 1)).argmax() == channel, path
    assert manifest["source"] == "cutouts" and manifest["classes"] == ["apple", "boat"]
    assert manifest == json.loads((tmp_path / "world" / "toyworld.json").read_text())


def test_the_manifest_lists_the_pictures_of_each_split(tmp_path, pictures):
    used = make_toyworld(tmp_path / "world", **pictures, **COUNTS)["pictures_used"]
    for split in ("train", "test"):
        cutouts = {f"{split}/{name}/{number}.png" for name in ("apple", "boat") for number in range(2)}
        assert set(used[split]) == cutouts | {f"{split}/0.jpg", f"{split}/1.jpg"}


def test_a_scene_with_a_picture_of_the_other_split_is_refused(tmp_path, pictures, monkeypatch):
    monkeypatch.setattr(
        "moco_det.toyworld.make.load_art",
        lambda *args: dict.fromkeys(("train", "test"), load_art(*args)["test"]),
    )
    with pytest.raises(AssertionError, match="a scene of train shows"):
        make_toyworld(tmp_path / "world", **pictures, **COUNTS)


def test_cutouts_are_scaled_turned_flipped_and_lit(pictures):
    path = pictures["cutouts"] / "train" / "apple" / "0.png"
    picture = np.array(Image.open(path))
    picture[:, 15:, 1] = 200  # the right half is green
    for name in ("0.png", "1.png"):
        Image.fromarray(picture).save(path.with_name(name))
    art = art_of(pictures)["train"]
    sprites = [art.sprite(numpy_generator(0, "cut-out", i), "apple", 20) for i in range(30)]
    assert {max(sprite.rgba.shape[:2]) for sprite in sprites} == {20}
    assert len({sprite.rgba.shape for sprite in sprites}) > 3  # turned
    halves = [np.sign(s.rgba[:, 12:, 1].mean() - s.rgba[:, :8, 1].mean()) for s in sprites]
    assert set(halves) == {-1, 1}  # flipped
    brightness = [s.rgba[s.mask][:, :3].mean() for s in sprites]
    assert np.std(brightness) > 5


def test_thin_cutouts_do_not_vanish_when_scaled_down(pictures):
    wire = np.zeros((160, 160, 4), dtype=np.uint8)
    wire[np.arange(160), np.arange(160), 3] = wire[0, :, 3] = wire[:, 0, 3] = 255
    wire[1, :, 3] = 255
    for name in ("0.png", "1.png"):
        Image.fromarray(wire).save(pictures["cutouts"] / "train" / "apple" / name)
    art = art_of(pictures, image_size=128)["train"]
    for index in range(20):
        assert art.sprite(numpy_generator(0, "wire", index), "apple", 8).mask.any()


def test_backgrounds_are_cropped_from_any_place(pictures):
    path = pictures["backgrounds"] / "train" / "0.jpg"
    ramp = np.broadcast_to(np.linspace(0, 255, 200)[None, :, None], (60, 200, 3)).astype(np.uint8)
    for name in ("0.jpg", "1.jpg"):
        Image.fromarray(ramp).save(path.with_name(name))
    art = art_of(pictures)["train"]
    crops = [art.background(numpy_generator(0, "crop", i), 32).rgb for i in range(40)]
    assert {crop.shape for crop in crops} == {(32, 32, 3)}
    means = [crop.mean() for crop in crops]
    assert min(means) < 70 and max(means) > 185
    slopes = {np.sign(crop[:, -1].mean() - crop[:, 0].mean()) for crop in crops}
    assert slopes == {-1, 1}


def test_a_picture_turned_by_exif_stands_upright(pictures):
    path = pictures["backgrounds"] / "train" / "0.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn
    Image.new("RGB", (60, 40), (90, 0, 0)).save(path, exif=exif)
    art = art_of(pictures, image_size=64)["train"]
    assert art._backgrounds[0].rgb.shape == (60, 40, 3)


def test_cutout_scenes_carry_their_sources(pictures):
    scene = compose(numpy_generator(0, "sources", 0), art_of(pictures)["test"], 32, SEVERAL, first="boat")
    assert scene.objects[0].sprite.source.startswith("test/boat/")
    assert scene.background_source in ("test/0.jpg", "test/1.jpg")


def test_the_digest_follows_the_content_and_not_the_place(tmp_path, pictures):
    before = list_pictures(**pictures).digest
    moved = {name: shutil.copytree(path, tmp_path / f"moved_{name}") for name, path in pictures.items()}
    assert list_pictures(**moved).digest == before
    Image.new("RGB", (50, 50), (80, 1, 1)).save(moved["backgrounds"] / "train" / "0.jpg")
    assert list_pictures(**moved).digest != before


def break_no_alpha(pictures):
    Image.new("RGB", (20, 20)).save(pictures["cutouts"] / "train" / "apple" / "0.png")


def break_invisible(pictures):
    Image.new("RGBA", (20, 20), (9, 9, 9, 100)).save(pictures["cutouts"] / "train" / "apple" / "0.png")


def break_empty(pictures):
    Image.new("RGBA", (20, 20)).save(pictures["cutouts"] / "train" / "apple" / "0.png")


def break_truncated(pictures):
    path = pictures["backgrounds"] / "test" / "0.jpg"
    path.write_bytes(path.read_bytes()[:-40])


def break_not_an_image(pictures):
    (pictures["cutouts"] / "test" / "boat" / "1.png").write_text("no picture")


def break_empty_class(pictures):
    for path in (pictures["cutouts"] / "test" / "boat").iterdir():
        path.unlink()


def break_no_class(pictures):
    for name in ("apple", "boat"):
        shutil.rmtree(pictures["cutouts"] / "train" / name)


def break_class_of_one_split(pictures):
    (pictures["cutouts"] / "test" / "boat").rename(pictures["cutouts"] / "test" / "ship")


def break_missing_split(pictures):
    shutil.rmtree(pictures["backgrounds"] / "test")


def break_no_backgrounds(pictures):
    for path in (pictures["backgrounds"] / "train").iterdir():
        path.unlink()


def break_shared(pictures):
    source = pictures["cutouts"] / "test" / "boat" / "0.png"
    shutil.copy(source, pictures["cutouts"] / "train" / "boat" / "copied.png")


@pytest.mark.parametrize(
    "damage, message",
    [
        (break_no_alpha, r"apple/0\.png has no alpha channel \(mode RGB\); expected an RGBA"),
        (
            break_invisible,
            r"apple/0\.png shows too little: 0\.0% of its bounding box .* expected at least 2%",
        ),
        (break_empty, r"apple/0\.png shows too little: 0\.0% of its bounding box"),
        (break_truncated, r"cannot read the picture .*test/0\.jpg"),
        (break_not_an_image, r"cannot read the picture .*boat/1\.png"),
        (break_empty_class, r"test/boat holds no picture; expected files ending in \.png"),
        (break_no_class, r"cutouts/train holds no class folders; expected train/<class>/\*\.png"),
        (break_class_of_one_split, r"same classes; found in one only: \['boat', 'ship'\]"),
        (break_missing_split, r"backgrounds/test does not exist; expected train/ and test/"),
        (break_no_backgrounds, r"backgrounds/train holds no picture; expected files ending in \.jpg"),
        (break_shared, r"same picture as .*copied\.png; keep it in one split only"),
    ],
)
def test_bad_folders_are_refused_and_nothing_is_left(tmp_path, pictures, damage, message):
    damage(pictures)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message):
        make_toyworld(tmp_path / "world", **pictures, **COUNTS)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("given, missing", [("cutouts", "--backgrounds"), ("backgrounds", "--cutouts")])
def test_cutouts_and_backgrounds_go_together(tmp_path, pictures, given, missing):
    with pytest.raises(ValueError, match=f"{missing} is missing"):
        make_toyworld(tmp_path / "world", **{given: pictures[given]}, **COUNTS)
