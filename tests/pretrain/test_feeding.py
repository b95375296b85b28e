"""The verdict on a run that waits for its images: when it comes, and what it says."""

import logging
from types import SimpleNamespace

import pytest

from moco_det.config import get_cfg
from moco_det.engine.record import config_hash
from moco_det.engine.run_folder import check_continuation
from moco_det.pretrain import feeding
from moco_det.pretrain.feeding import QUIET_PERIODS, DataWaitWatch, describe_waiting, fixes_of_waiting


def config(workers: int = 4, device: str = "cuda", where: str = "auto", prefetch: int = 2):
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.INPUT.VIEWS.AUGMENT_ON = device, where
    cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.PREFETCH = workers, prefetch
    return cfg


@pytest.mark.parametrize(
    ("cfg", "said", "not_said"),
    [
        (config(), ("NUM_WORKERS 8; DATALOADER.PREFETCH 4",), ("AUGMENT_ON", "more cores")),
        (config(where="workers"), ("NUM_WORKERS 8; INPUT.VIEWS.AUGMENT_ON device",), ()),
        (
            config(workers=8, device="cpu", prefetch=4),
            ("more cores",),
            ("AUGMENT_ON", "NUM_WORKERS", "PREFETCH"),
        ),
        (config(workers=0), ("NUM_WORKERS 8",), ("PREFETCH",)),
    ],
)
def test_what_to_change_is_what_can_be_changed(cfg, said, not_said):
    text = describe_waiting(cfg, 0.42, cores=16, processes=2)
    assert "wait for images 42% of their time" in text and "each of 2 processes on 16 cores" in text
    assert all(words in text for words in (*said, "tools/pack_images.py"))
    assert not any(words in text for words in not_said)
    assert "each of 1 process on" in describe_waiting(cfg, 0.42, cores=16, processes=1)


def test_resume_takes_what_is_advised(tmp_path):
    """A run that follows the advice stays the same run: its config hash does not change."""
    before = config(workers=1, where="workers")
    before.OUTPUT_DIR = str(tmp_path)
    (tmp_path / "config.yaml").write_text(before.dump())
    after, advised = before.clone(), []
    for words in map(str.split, fixes_of_waiting(before, cores=16, processes=2)):
        if "." in words[0]:
            after.merge_from_list(words[:2])
            advised.append(words[0])
    assert len(advised) == 3 and after != before
    assert check_continuation(after) == [] and config_hash(after) == config_hash(before)


def warnings_at(caplog, waits: list[float]) -> list[int]:
    """Periods (from 0) in which the hook warns, with logs every 2 steps."""
    watch, periods = DataWaitWatch(config(), 2), []
    for step in range(2 * len(waits)):
        latest = {"data_wait": (waits[step // 2], step)}
        storage = SimpleNamespace(latest=lambda latest=latest: latest)
        watch.trainer = SimpleNamespace(iter=step, max_iter=10**6, storage=storage)
        caplog.clear()
        with caplog.at_level(logging.WARNING, feeding.logger.name):
            watch.after_step()
        periods += [step // 2] * len(caplog.records)
    return periods


def test_it_warns_once_in_a_while_and_not_at_the_start(caplog):
    assert warnings_at(caplog, [0.9] + [0.05] * 5) == []
    assert warnings_at(caplog, [0.9, 0.05, 0.2, 0.3, 0.05, 0.5]) == [2]
    assert warnings_at(caplog, [0.5] * (2 * QUIET_PERIODS)) == [1, 1 + QUIET_PERIODS]
