"""Finding images: in folders, lists and registered data sets."""

import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from moco_det.data.image_files import find_images, register_imagenet, registered_images


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_folder_is_searched_in_all_depths_in_stable_order(tmp_path):
    kept = ["a.JPG", "b/c/d.jpeg", "b/e.png", "z.tif", "m.TIFF", "n.webp", "o.bmp", "p.ppm"]
    touch(tmp_path, *reversed(kept))
    touch(tmp_path, "notes.txt", "c.jpg.part", ".hidden.jpg", ".thumbs/t.jpg", "jpg")
    assert find_images(str(tmp_path)) == sorted(str(tmp_path / name) for name in kept)


def test_links_to_folders_are_followed_once(tmp_path):
    touch(tmp_path, "disk/a.jpg", "data/b.jpg")
    (tmp_path / "data" / "more").symlink_to(tmp_path / "disk")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    found = find_images(str(tmp_path / "data"))
    assert found == [str(tmp_path / "data/b.jpg"), str(tmp_path / "data/more/a.jpg")]


def test_list_file_keeps_its_order_and_is_relative_to_its_folder(tmp_path):
    touch(tmp_path, "sub/b.jpg", "a.jpg")
    absolute = str(tmp_path / "a.jpg")
    lists = tmp_path / "list.txt"
    lists.write_text(f"# two images\n\n  sub/b.jpg \n{absolute}\nsub/gone.jpg\n")
    assert find_images(str(lists)) == [str(tmp_path / "sub/b.jpg"), absolute, str(tmp_path / "sub/gone.jpg")]


def test_nothing_to_find_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no image in folder .*looked for \.jpg, \.jpeg, .*\.ppm"):
        find_images(str(tmp_path))
    with pytest.raises(ValueError, match="nowhere' does not exist.*give a folder"):
        find_images(str(tmp_path / "nowhere"))
    lists = tmp_path / "list.txt"
    lists.write_text("# nothing\n\n")
    with pytest.raises(ValueError, match="names no image"):
        find_images(str(lists))
    lists.write_text("gone.jpg\nalso_gone.jpg\n")
    with pytest.raises(ValueError, match=" 2 files .*gone.jpg"):
        find_images(str(lists))
    Image.new("RGB", (8, 8)).save(tmp_path / "one.jpg")
    with pytest.raises(ValueError, match="one.jpg' is not a text file"):
        find_images(str(tmp_path / "one.jpg"))


@pytest.fixture
def register():
    names = []

    def add(name, function):
        DatasetCatalog.register(name, function)
        names.append(name)

    yield add
    for name in names:
        DatasetCatalog.remove(name)


def test_registered_data_sets_give_each_file_once_in_order(tmp_path, register):
    touch(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    one, two, three = (str(tmp_path / f"{i}.jpg") for i in (1, 2, 3))
    register("unlabeled_x", lambda: [{"file_name": two, "annotations": []}, {"file_name": one}])
    register("unlabeled_y", lambda: [{"file_name": one}, {"file_name": three}])
    assert registered_images(("unlabeled_x", "unlabeled_y")) == [two, one, three]


def test_unknown_data_set_names_the_closest_match(register):
    register("unlabeled_photos", list)
    with pytest.raises(ValueError, match=r"'unlabeled_photo' .*unlabeled_photos"):
        registered_images(["unlabeled_photo"])


@pytest.mark.parametrize("name", ["coco_2017_train", "voc_2007_trainval", "imagenet_train"])
def test_missing_data_set_says_where_it_was_looked_for(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    register_imagenet()
    with pytest.raises(ValueError, match=f"{name}' are missing .*{tmp_path}/datasets.*DETECTRON2_DATASETS"):
        registered_images([name])


def test_data_set_whose_images_alone_are_missing(tmp_path, register):
    register("labels_only", lambda: [{"file_name": str(tmp_path / "gone.jpg")}])
    with pytest.raises(ValueError, match=r"labels_only.*none of its 1 images exists, e.g. .*gone.jpg"):
        registered_images(["labels_only"])


def test_imagenet_is_found_under_the_data_sets_folder(tmp_path, monkeypatch):
    touch(tmp_path, "imagenet/train/n01/b.JPEG", "imagenet/train/n00/a.JPEG", "imagenet/val/n00/c.JPEG")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    register_imagenet()
    register_imagenet()  # a second import must not fail
    train = tmp_path / "imagenet" / "train"
    assert registered_images(["imagenet_train"]) == [str(train / "n00/a.JPEG"), str(train / "n01/b.JPEG")]
