"""The folder of a run."""

import logging

from moco_det.engine.run_folder import log_to


def test_a_relative_folder_is_the_one_of_the_moment(tmp_path, monkeypatch):
    """Two runs of one process may both be called "out"."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        log_to("out", "moco_det")
        logging.getLogger("moco_det").info(f"This is the {name}")
    assert (
        "This is the second" not in (tmp_path / "first/out/log.txt").read_text().split("This is the first")[0]
    )
    assert "This is the second" in (tmp_path / "second/out/log.txt").read_text()
