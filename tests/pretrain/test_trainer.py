"""Runs of a few steps: outputs, resume, schedule, ranks, and what a user can get wrong."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from moco_det.engine import checkpoint
from moco_det.engine.hooks import LogWriter
from moco_det.engine.run_folder import prepare_run_folder
from moco_det.pretrain import trainer as trainer_module
from moco_det.pretrain.command import argument_parser, main
from moco_det.pretrain.settings import build_config
from moco_det.pretrain.trainer import PretrainTrainer
from moco_det.testing.core import tiny_pretrain_config, write_random_images

TINY = (
    *("MODEL.ENCODER.ARCH", "resnet18", "MODEL.MOCO.DIM", "16", "MODEL.MOCO.QUEUE_SIZE", "16"),
    *("MODEL.ENCODER.BN_GROUP_SIZE", "4", "INPUT.VIEWS.SIZE", "32", "SOLVER.IMS_PER_BATCH", "8"),
    *("SOLVER.EPOCHS", "2", "SOLVER.LOG_PERIOD", "1", "DATALOADER.NUM_WORKERS", "0", "SEED", "1"),
)
RECIPE = ("--config-file", "configs/Pretrain/moco_v2_R_50_200ep.yaml", "--num-gpus", "0")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_random_images(folder, 24)
    return folder


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """A whole run with kNN, through the command line's function."""
    root = tmp_path_factory.mktemp("run")
    for split in ("train", "test"):
        for number, name in enumerate("xy"):
            write_random_images(root / "knn" / split / name, 4, seed=number)
    options = ("TEST.KNN.IMAGES", str(root / "knn"), "TEST.KNN.K", "3", "OUTPUT_DIR", str(root / "out"))
    main([*RECIPE, "--images", str(images), *TINY, *options])
    return root / "out"


def test_no_evaluation_is_lost_between_two_lines_of_the_log(finished, images, tmp_path):
    """A run of six steps with kNN before them and after the third and the last, which logs once."""
    knn = ("TEST.KNN.IMAGES", str(finished.parent / "knn"), "TEST.KNN.K", "3", "SOLVER.LOG_PERIOD", "100")
    main([*RECIPE, "--images", str(images), *TINY, *knn, "OUTPUT_DIR", str(tmp_path)])
    measured = [line["knn_accuracy"] for line in lines(tmp_path) if "knn_accuracy" in line]
    assert measured == [line["knn_accuracy"] for line in lines(finished) if "knn_accuracy" in line]
    assert [line["iteration"] for line in lines(tmp_path)] == [0, 2, 5]
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["metrics"]["knn_untrained"] == measured[0]


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]


def start(cfg, images, resume=False):
    cfg.DATASETS.IMAGES = str(images)
    prepare_run_folder(cfg, resume)
    trainer = PretrainTrainer(cfg)
    if resume:
        trainer.resume()
    return trainer


def test_run_folder_holds_what_the_other_stages_read(finished):
    assert {"config.yaml", "metrics.json", "run.json", "sample_views.png", "model_final.pth"} <= {
        path.name for path in finished.iterdir()
    }
    steps = [line for line in lines(finished) if "total_loss" in line]
    assert [line["iteration"] for line in steps] == list(range(6))  # 2 epochs * floor(24 / 8)
    assert [line["queue_fill"] for line in steps] == [0, 0.5, 1, 1, 1, 1]
    assert all(0 <= line["data_wait"] <= 1 and line["images_per_second"] > 0 for line in steps)
    assert len([line for line in lines(finished) if "knn_accuracy" in line]) == 3  # untrained, 2 epochs
    record = json.loads((finished / "run.json").read_text())
    assert record["stage"] == "pretrain" and record["extra"]["images"] == 24
    assert record["extra"]["precision"] == "float32"
    assert 0 <= record["metrics"]["knn_untrained"] <= 100
    neighbors = json.loads((finished / "neighbors.json").read_text())
    assert len(neighbors) == 8 and len(neighbors[0]["neighbors"]) == 5


def test_checkpoint_follows_the_contract_and_loads_without_code(finished):
    saved = torch.load(finished / "model_final.pth", weights_only=True)
    assert saved["iteration"] == 5 and "SEED: 1" in saved["config"]
    assert saved["moco_det"]["arch"] == "resnet18"
    assert saved["moco_det"]["preprocessing"] == {
        "format": "RGB",
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
        "stride_in_1x1": False,
    }
    assert saved["model"]["dictionary.keys"].shape == (16, 16) and saved["optimizer"]["state"]
    assert saved["model"]["dictionary.num_real"] == 16


def test_colors_done_on_the_device_resume_bit_for_bit_and_train_the_same(images, tmp_path):
    def run(folder, where, steps=None, resume=False):
        cfg = tiny_pretrain_config(tmp_path / folder, CHECKPOINT_EPOCHS=1)
        cfg.INPUT.VIEWS.AUGMENT_ON = where
        trainer = start(cfg, images, resume)
        trainer.max_iter = steps or trainer.max_iter
        trainer.run()
        return lines(tmp_path / folder)

    run("cut", "device", steps=4)
    resumed, whole, workers = run("cut", "device", resume=True), run("a", "device"), run("b", "workers")
    assert (tmp_path / "a/sample_views.png").exists()
    losses = [[line["total_loss"] for line in run] for run in (resumed, whole, workers)]
    assert losses[0] == losses[1]
    # Pixel values may be rounded differently.
    assert losses[1][0] == pytest.approx(losses[2][0], rel=1e-3)


@pytest.mark.parametrize("settings", [{}, {"PRECISION": "float16"}, {"ACCUMULATE": 2}])
def test_stop_and_resume_equals_uninterrupted(images, tmp_path, settings):
    """Bit for bit, interrupted in the middle of an epoch, with momentum, a queue half full and a loss scaler."""
    first = start(tiny_pretrain_config(tmp_path, CHECKPOINT_EPOCHS=1, **settings), images)
    first.max_iter = 4
    first.run()
    assert not (tmp_path / "model_0000005.pth").exists()

    resumed = start(tiny_pretrain_config(tmp_path, **settings), images, resume=True)
    assert resumed.start_iter == 4
    resumed.run()

    whole = start(tiny_pretrain_config(tmp_path / "whole", **settings), images)
    whole.run()
    for name, value in whole.method.state_dict().items():
        assert torch.equal(value, resumed.method.state_dict()[name]), name
    assert whole.scaler.state_dict() == resumed.scaler.state_dict()
    by_iteration = {line["iteration"]: line["total_loss"] for line in lines(tmp_path)}
    for line in lines(tmp_path / "whole"):
        assert by_iteration[line["iteration"]] == line["total_loss"]


def test_a_resumed_sampler_that_restarts_is_caught(images, tmp_path, monkeypatch):
    """The comparison above has teeth: a loader that starts again gives other losses."""
    first = start(tiny_pretrain_config(tmp_path, CHECKPOINT_EPOCHS=1), images)
    first.max_iter = 4
    first.run()
    resumed = start(tiny_pretrain_config(tmp_path), images, resume=True)
    build = trainer_module.build_loader
    monkeypatch.setattr(
        trainer_module,
        "build_loader",
        lambda *args, **options: build(*args, **options | {"start_iteration": 0}),
    )
    resumed.run()
    whole = start(tiny_pretrain_config(tmp_path / "whole"), images)
    whole.run()
    ours, theirs = (
        {line["iteration"]: line["total_loss"] for line in lines(f)} for f in (tmp_path, tmp_path / "whole")
    )
    assert ours[3] == theirs[3] and ours[4] != theirs[4]


def test_float16_skips_a_step_that_overflows(images, tmp_path):
    """The scaler lowers its scale, the weights stay; and its scale is in the log."""
    trainer = start(tiny_pretrain_config(tmp_path, PRECISION="float16"), images)
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = {name: value.clone() for name, value in trainer.method.encoder_q.named_parameters()}
    trainer.max_iter = 1
    trainer.run()
    assert all(
        torch.equal(before[name], value) for name, value in trainer.method.encoder_q.named_parameters()
    )
    assert lines(tmp_path)[0]["loss_scale"] == 2.0**39


def test_finished_run_is_left_alone(finished, images, tmp_path):
    shutil.copytree(finished, tmp_path / "out")
    before = (tmp_path / "out/model_final.pth").stat().st_mtime_ns
    main([*RECIPE, "--images", str(images), "--resume", *TINY, "OUTPUT_DIR", str(tmp_path / "out")])
    assert (tmp_path / "out/model_final.pth").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "options, message",
    [
        (("SOLVER.BASE_LR", "0.1"), "SOLVER.BASE_LR was 0.03, is 0.1; give the same"),
        (("MODEL.MOCO.QUEUE_SIZE", "24"), "MODEL.MOCO.QUEUE_SIZE was 16, is 24"),
        (("SEED", "2"), "SEED was 1, is 2"),
    ],
)
def test_a_run_is_not_continued_as_another(finished, images, tmp_path, capsys, options, message):
    shutil.copytree(finished, tmp_path / "out")
    before = (tmp_path / "out/config.yaml").read_text()
    options = (*TINY, "OUTPUT_DIR", str(tmp_path / "out"), *options)
    with pytest.raises(SystemExit):
        main([*RECIPE, "--images", str(images), "--resume", *options])
    assert message in capsys.readouterr().err
    assert (tmp_path / "out/config.yaml").read_text() == before


def test_more_epochs_make_a_finished_run_longer(finished, images, tmp_path, capsys):
    """Named in the log; fewer than are done are refused."""
    shutil.copytree(finished, tmp_path / "out")
    again = (*RECIPE, "--images", str(images), "--resume", *TINY, "OUTPUT_DIR", str(tmp_path / "out"))
    main([*again, "SOLVER.EPOCHS", "3"])
    log = (tmp_path / "out/log.txt").read_text()
    assert "--resume: SOLVER.EPOCHS was 2, is 3; it holds from here on" in log
    steps = [line for line in lines(tmp_path / "out") if "total_loss" in line]
    assert [line["iteration"] for line in steps] == list(range(9))
    assert [line["lr"] for line in steps[6:]] == pytest.approx([0.03 * 0.25] * 3)  # epoch 2 of 3
    with pytest.raises(SystemExit):
        main([*again, "SOLVER.EPOCHS", "1"])
    assert "EPOCHS is 1, which ends at step 3, but the run in" in capsys.readouterr().err


def test_a_continuation_names_what_its_rounding_depends_on(images, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # else a run continues with the threads that it had
    first = start(tiny_pretrain_config(tmp_path, CHECKPOINT_EPOCHS=1), images)
    first.max_iter = 3
    first.run()
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        start(tiny_pretrain_config(tmp_path, ACCUMULATE=2), images, resume=True)
    finally:
        torch.set_num_threads(threads)
    changes = f"(threads a process {threads} -> {threads + 1}, ACCUMULATE 1 -> 2)"
    assert changes in (tmp_path / "log.txt").read_text()


def test_a_continuation_keeps_its_number_of_threads(images, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("moco_det.engine.threads.num_cores", lambda: 8)
    own = torch.get_num_threads()
    first = start(tiny_pretrain_config(tmp_path, CHECKPOINT_EPOCHS=1), images)
    first.max_iter = 3
    first.run()
    torch.set_num_threads(own + 1)
    try:
        again = start(tiny_pretrain_config(tmp_path), images, resume=True)
        assert torch.get_num_threads() == again.checkpointer.record["environment"]["threads a process"] == own
    finally:
        torch.set_num_threads(own)
    assert "Continued on other terms" not in (tmp_path / "log.txt").read_text()


def test_a_run_is_not_continued_on_other_images(finished, images, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "out")
    shutil.copytree(images, tmp_path / "more")
    write_random_images(tmp_path / "more/deeper", 1)
    options = ("--resume", *TINY, "OUTPUT_DIR", str(tmp_path / "out"), "SOLVER.EPOCHS", "2")
    with pytest.raises(SystemExit):
        main([*RECIPE, "--images", str(tmp_path / "more"), *options])
    assert "made on 24 images, there are 25 now" in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_refused(images, tmp_path):
    trainer = start(tiny_pretrain_config(tmp_path), images)
    trainer.checkpointer.save("model_0000000", iteration=0)
    saved = torch.load(tmp_path / "model_0000000.pth")
    del saved["model"]["encoder_q.fc.2.bias"]
    torch.save(saved, tmp_path / "model_0000000.pth")
    with pytest.raises(ValueError, match=r"(?s)of another model: .*encoder_q.fc.2.bias"):
        trainer.resume()


def test_a_run_cut_after_its_last_checkpoint_still_gets_its_record(finished, images, tmp_path):
    shutil.copytree(finished, tmp_path / "out")
    expected = json.loads((tmp_path / "out/run.json").read_text())["metrics"]
    (tmp_path / "out/run.json").unlink()
    main([*RECIPE, "--images", str(images), "--resume", *TINY, "OUTPUT_DIR", str(tmp_path / "out")])
    assert json.loads((tmp_path / "out/run.json").read_text())["metrics"] == expected


def test_learning_rate_changes_with_the_epoch_and_not_within(images, tmp_path):
    trainer = start(tiny_pretrain_config(tmp_path), images)
    trainer.run()
    rates = [line["lr"] for line in lines(tmp_path)]
    assert rates == pytest.approx([0.03] * 3 + [0.015] * 3)


def test_weight_decay_reaches_every_parameter(images, tmp_path):
    """One group with 1e-4 on batch norm and biases too (PAPER: official code, main_moco.py)."""
    trainer = start(tiny_pretrain_config(tmp_path), images)
    (group,) = trainer.optimizer.param_groups
    assert (group["weight_decay"], group["momentum"], group["nesterov"]) == (1e-4, 0.9, False)
    assert len(group["params"]) == len(list(trainer.method.encoder_q.parameters()))


def test_the_log_says_why_the_loss_rises_first():
    latest = dict.fromkeys(
        (
            *("similarity_positive", "similarity_batch", "similarity_negative"),
            *("images_per_second", "data_wait", "lr"),
        ),
        0.1,
    )
    latest |= {"epoch": 0.5, "total_loss": 6.0, "accuracy": 0.2, "seconds_per_step": 2.0}
    writer = LogWriter(PretrainTrainer.describe_outputs, 35, 10)
    filling = writer.line({**latest, "queue_fill": 0.4}, 5)
    assert "queue fill 40% (" in filling and "left 0:01:00" in filling
    assert "rises" not in writer.line({**latest, "queue_fill": 1.0}, 5)


def test_weights_that_are_not_finite_are_not_saved(images, tmp_path):
    trainer = start(tiny_pretrain_config(tmp_path, LOG_PERIOD=100), images)
    trainer.checkpointer.save("model_0000000", iteration=0)
    trainer.method.encoder_q.fc[0].bias.data[3] = float("inf")
    with pytest.raises(FloatingPointError, match="encoder_q.fc.0.bias .*model_0000001"):
        trainer.checkpointer.save("model_0000001", iteration=1)
    assert [path.name for path in tmp_path.glob("*.pth")] == ["model_0000000.pth"]


def test_nan_stops_the_run_and_keeps_the_last_checkpoint(images, tmp_path):
    trainer = start(tiny_pretrain_config(tmp_path), images)
    trainer.method.encoder_q.fc[0].weight.data.fill_(float("nan"))
    with pytest.raises(
        FloatingPointError,
        match="step 1, process 0: .* nan.*encoder_k.fc.0",
    ):
        trainer.run()
    assert [path.name for path in tmp_path.glob("*.pth")] == ["nonfinite_0000000.pth"]


def test_no_space_keeps_the_last_checkpoint(images, tmp_path, monkeypatch):
    trainer = start(tiny_pretrain_config(tmp_path), images)
    trainer.checkpointer.save("model_0000000", iteration=0)
    before = (tmp_path / "model_0000000.pth").read_bytes()

    def full_disk(data, path):
        path.write_bytes(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc] . unexpected pos: No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full_disk)
    with pytest.raises(OSError, match=r"cannot write .*model_0000000.pth.*No space.*--resume"):
        trainer.checkpointer.save("model_0000000", iteration=0)
    assert (tmp_path / "model_0000000.pth").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "model" in path.name] == ["model_0000000.pth"]


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ("MODEL.MOCO.QUEUESIZE", "64"),
            "unknown config key 'MODEL.MOCO.QUEUESIZE'.*'MODEL.MOCO.QUEUE_SIZE'",
        ),
        (
            ("SOLVER.MAX_ITER", "100"),
            "MAX_ITER does not apply to pre-training with MoCo; use SOLVER.EPOCHS",
        ),
        (("MODEL.RPN.NMS_THRESH", "0.5"), "MODEL.RPN.NMS_THRESH does not apply"),
        (("SOLVER.EPOCHS", "many"), "command line: .*SOLVER.EPOCHS"),
        (("SOLVER.EPOCHS",), "KEY VALUE pairs"),
        (("--resume",), "the flag --resume stands after a KEY VALUE pair"),
        (
            ("SOLVER.IMS_PER_BATCH", "32", "MODEL.MOCO.DICTIONARY", "memory_bank"),
            "24 images do not fill one batch",
        ),
        (
            ("MODEL.MOCO.QUEUE_SIZE", "64"),
            "QUEUE_SIZE is 64, but there are only 24 images.*: MODEL.MOCO.QUEUE_SIZE 4 SOLVER.IMS_PER_BATCH 4 ",
        ),
        (("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR"), "'WarmupCosineLR'; expected one of EpochMulti"),
        (("DATASETS.TRAIN", "('coco_2017_train',)"), "expected one of them"),
        (("SOLVER.STEP_EPOCHS", "(1,)"), "SOLVER.STEP_EPOCHS has no effect with .*EpochCosineLR"),
        (("INPUT.VIEWS.SMALL_SIZE", "16"), "SMALL_SIZE has no effect with INPUT.VIEWS.SMALL_CROPS 0"),
        (
            ("INPUT.VIEWS.RECIPE", "v1", "INPUT.VIEWS.BLUR_SIGMA", "(0.1, 1.0)"),
            "BLUR_SIGMA has no effect with INPUT.VIEWS.RECIPE v1",
        ),
        (("INPUT.VIEWS.AUGMENT_ON", "gpu"), "AUGMENT_ON is 'gpu'; expected one of auto, workers, device"),
        (("DATALOADER.PREFETCH", "4"), "PREFETCH has no effect with DATALOADER.NUM_WORKERS 0"),
        (("TEST.KNN.K", "5"), "TEST.KNN.K has no effect with an empty TEST.KNN.IMAGES"),
        (("MODEL.ENCODER.NORM", "SyncBN"), "BN_GROUP_SIZE has no effect with MODEL.ENCODER.NORM SyncBN"),
        (("TEST.KNN.IMAGES", "/nowhere"), "TEST.KNN.IMAGES: '/nowhere' does not exist"),
    ],
)
def test_settings_that_cannot_run_end_in_one_sentence(images, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        main([*RECIPE, "--images", str(images), *TINY, "OUTPUT_DIR", str(tmp_path / "out"), *options])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.startswith("error: ") and len(error.splitlines()) == 1


def test_a_run_is_not_written_over(finished, images, capsys):
    with pytest.raises(SystemExit):
        main([*RECIPE, "--images", str(images), *TINY, "OUTPUT_DIR", str(finished)])
    assert "already holds a run; continue it with --resume" in capsys.readouterr().err


def test_more_gpus_than_there_are_is_refused(images, capsys):
    with pytest.raises(SystemExit):
        main([*RECIPE[:3], "99", "--images", str(images)])
    assert "--num-gpus is 99, but this machine has" in capsys.readouterr().err


def test_a_negative_seed_is_drawn_once_and_kept_at_resume(images, tmp_path):
    args = argument_parser().parse_args(
        [*RECIPE, "--images", str(images), *TINY, "SEED", "-1", "OUTPUT_DIR", str(tmp_path)]
    )
    cfg = build_config(args)
    assert cfg.SEED >= 0
    prepare_run_folder(cfg, resume=False)
    args.resume = True
    assert build_config(args).SEED == cfg.SEED


def test_unreadable_images_are_listed_and_too_many_stop_the_run(images, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(images, folder)
    bad = sorted(folder.iterdir())[5]
    bad.write_bytes(bad.read_bytes()[:200])
    cfg = tiny_pretrain_config(tmp_path / "run")
    cfg.DATASETS.MAX_UNREADABLE = 0.1
    trainer = start(cfg, folder)
    trainer.run()
    (line,) = (tmp_path / "run/unreadable_images.txt").read_text().splitlines()
    assert line.startswith(f"{bad}\t")
    assert lines(tmp_path / "run")[-1]["unreadable_images"] == 1
    cfg = tiny_pretrain_config(tmp_path / "strict")
    cfg.DATASETS.MAX_UNREADABLE = 0.01
    with pytest.raises(ValueError, match="1 of the 24 images cannot be read"):
        start(cfg, folder).run()


def test_reads_registered_data_sets(images, tmp_path):
    from detectron2.data import DatasetCatalog

    paths = [{"file_name": str(path)} for path in sorted(images.iterdir())]
    DatasetCatalog.register("pretrain_test_set", lambda: paths)
    try:
        options = ("DATASETS.TRAIN", "('pretrain_test_set',)", "OUTPUT_DIR", str(tmp_path / "out"))
        main([*RECIPE, *TINY, *options, "SOLVER.EPOCHS", "1"])
    finally:
        DatasetCatalog.remove("pretrain_test_set")
    assert (tmp_path / "out/model_final.pth").exists()


@pytest.mark.parametrize(("small_crops", "views"), [(0, 2 * 8 * 3), (4, 6 * 8 * 3)])
def test_the_views_of_a_run_count_its_local_crops(tmp_path, small_crops, views):
    cfg = tiny_pretrain_config(tmp_path, IMS_PER_BATCH=8)
    cfg.INPUT.VIEWS.SMALL_CROPS = small_crops
    assert PretrainTrainer.record_extra(SimpleNamespace(max_iter=3, cfg=cfg)) == {"views": views}
