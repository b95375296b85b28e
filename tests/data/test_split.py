"""One label file becomes two: nothing is lost, groups stay together, and what cannot be split is said."""

import json

import pytest

from moco_det.data.split import describe, main, read_labels, split_labels, with_places


def labels(num: int = 40, clips: int = 8) -> dict:
    """Frames of clips with two objects each; every fifth has none."""
    images = [{"id": 7 * n, "file_name": f"images/clip{n % clips}_{n:04}.jpg"} for n in range(num)]
    annotations = [
        {"id": 2 * n + k, "image_id": 7 * n, "category_id": 1 + k, "bbox": [0, 0, 9, 9]}
        for n in range(num)
        for k in range(2)
        if n % 5
    ]
    categories = [{"id": 1, "name": "bolt"}, {"id": 2, "name": "nut"}, {"id": 9, "name": "washer"}]
    return {"images": images, "annotations": annotations, "categories": categories, "info": {"year": 2026}}


def ids(part: dict) -> set[int]:
    return {image["id"] for image in part["images"]}


def clips(part: dict) -> set[str]:
    return {image["file_name"].split("_")[0] for image in part["images"]}


@pytest.mark.parametrize("group", ["", r"^(.*)_\d+"])
@pytest.mark.parametrize("test", [0.2, 0.5, 0.001, 0.999])
def test_every_image_and_object_stands_in_one_part(test, group):
    whole = labels()
    parts = split_labels(whole, test, group=group)
    assert ids(parts[0]) | ids(parts[1]) == ids(whole) and not ids(parts[0]) & ids(parts[1])
    assert all(ids(part) for part in parts)
    for part in parts:
        assert part["annotations"] == [each for each in whole["annotations"] if each["image_id"] in ids(part)]
        assert part["categories"] == whole["categories"] and part["info"] == {"year": 2026}


def test_the_fraction_is_that_of_the_images_and_the_seed_another_split():
    first, again, other = (split_labels(labels(), 0.2, seed)[1] for seed in (0, 0, 1))
    assert len(first["images"]) == 8 and first == again != other


def test_groups_stay_together():
    train, test = split_labels(labels(), 0.25, group=r"^(.*)_\d+")
    assert not clips(train) & clips(test) and len(clips(test)) == 2
    alone_train, alone_test = split_labels(labels(), 0.25)
    assert clips(alone_train) & clips(alone_test), "so without groups the test could not fail"
    assert split_labels(labels(), 0.25, group="clip[0-9]")[1]["images"]  # the whole match


@pytest.mark.parametrize(
    ("test", "group", "message"),
    [
        (0.0, "", "--test is 0; "),
        (1.0, "", "--test is 1; "),
        (0.2, "(", "--group '\\(' .*regular expression"),
        (0.2, "frame", "--group 'frame' .*'images/clip0_0000.jpg'"),
        (0.2, "^images", "--group '\\^images' .* 40 images .*two"),
    ],
)
def test_what_cannot_be_split_is_refused(test, group, message):
    with pytest.raises(ValueError, match=message):
        split_labels(labels(), test, group=group)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "readable as JSON"),
        ("[]", "no list 'images'"),
        ('{"images": [], "annotations": {}}', "no list 'annotations'"),
        (
            '{"images": [{"id": 1}], "annotations": [], "categories": []}',
            "number 0 of 'images' has no 'file_name'",
        ),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_labels(str(tmp_path / "a.json"))


def test_file_names_are_made_to_fit_the_folder(tmp_path):
    """Labeling tools write folders of their own before them."""
    (tmp_path / "photos/deep").mkdir(parents=True)
    for name in ("photos/a.jpg", "photos/deep/b.jpg"):
        (tmp_path / name).write_bytes(b"")
    content = {"images": [{"id": 1, "file_name": "images/a.jpg"}, {"id": 2, "file_name": "deep/b.jpg"}]}
    found = with_places(content, str(tmp_path / "photos"))
    assert [image["file_name"] for image in found["images"]] == ["a.jpg", "deep/b.jpg"]
    content["images"].append({"id": 3, "file_name": "images/c.jpg"})
    with pytest.raises(ValueError, match="neither 'images/c.jpg' nor 'c.jpg'"):
        with_places(content, str(tmp_path / "photos"))


def test_the_command_writes_two_files_once_and_says_what_is_in_them(tmp_path, capsys):
    (tmp_path / "all.json").write_text(json.dumps(labels()))
    words = ["--coco", str(tmp_path / "all.json"), "--output", str(tmp_path / "split")]
    main(words)
    printed = capsys.readouterr().out
    parts = {
        name: json.loads((tmp_path / "split" / name).read_text()) for name in ("train.json", "test.json")
    }
    assert [len(part["images"]) for part in parts.values()] == [32, 8]
    assert describe(parts) in printed and "test.json: 8 images" in printed
    assert "train.json has no object of washer" in printed and "bolt" not in printed
    assert f"--coco test {tmp_path}/split/test.json IMAGES" in printed
    with pytest.raises(SystemExit):
        main(words)
    assert "exists already" in capsys.readouterr().err
