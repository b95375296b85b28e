"""--plan: its numbers by hand, each rule of its advice, what it refuses, and that it writes nothing."""

import re
import shlex
import sys
from types import SimpleNamespace

import pytest
import torch
from fvcore.common.checkpoint import PeriodicCheckpointer

from moco_det.config import get_cfg, merge_config
from moco_det.data.sample_order import rank_batches
from moco_det.engine.run_folder import prepare_run_folder
from moco_det.model_zoo import get_config_file
from moco_det.pretrain.command import main
from moco_det.pretrain.moco import plan as moco_plan
from moco_det.pretrain.plan import advice as rules
from moco_det.pretrain.plan import plan
from moco_det.pretrain.plan import trial as plan_trial
from moco_det.pretrain.plan.facts import Facts, Trial, duration, typical_side
from moco_det.pretrain.trainer import PretrainTrainer
from moco_det.testing.core import tiny_pretrain_config, write_random_images
from moco_det.utils import disk_space

IMAGENET = 1_281_167
RECIPE = "configs/Pretrain/moco_v2_R_50_200ep.yaml"
TINY = (
    *("MODEL.ENCODER.ARCH", "resnet18", "MODEL.MOCO.DIM", "16", "MODEL.MOCO.QUEUE_SIZE", "16"),
    *("MODEL.ENCODER.BN_GROUP_SIZE", "4", "INPUT.VIEWS.SIZE", "32", "SOLVER.IMS_PER_BATCH", "8"),
    *("SOLVER.EPOCHS", "1", "SOLVER.LOG_PERIOD", "1", "DATALOADER.NUM_WORKERS", "0", "SEED", "1"),
)
MEASURED = Trial("a GPU", 100, 0.25, 0.02, 5 * 2**30, 16 * 2**30, 16)


def facts_of(*options, recipe="moco_v2_R_50_200ep", num_images=IMAGENET, **more) -> Facts:
    cfg = get_cfg()
    merge_config(cfg, get_config_file(f"Pretrain/{recipe}"), list(map(str, options)))
    return Facts(cfg, num_images, **more)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A user's folder with 25 images; a trial there takes two steps."""
    write_random_images(tmp_path / "images", 25)
    monkeypatch.setattr(plan_trial, "CPU_STEPS", 2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def type_in(monkeypatch, *words) -> None:
    start = ["tools/pretrain_moco.py", "--config-file", RECIPE, "--images", "images"]
    monkeypatch.setattr(sys, "argv", [*start, *words])
    main()


def files_below(folder) -> dict:
    # The log of a run in this process stays open for all that comes after it.
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "log.txt"}


# ---- the numbers ---------------------------------------------------------------------------------


def test_numbers_of_the_papers_recipe():
    facts = facts_of(ranks=8)
    assert (facts.steps_per_epoch, facts.dropped, facts.steps) == (5004, 143, 1_000_800)
    assert (facts.local, facts.micro_batch, facts.group, facts.samples) == (32, 32, 32, 256_204_800)
    assert facts.linear_lr == facts.cfg.SOLVER.BASE_LR == 0.03
    assert moco_plan.queue_batches(facts) == 256 and moco_plan.time_constant(facts) == pytest.approx(1000)
    # 256 steps of an epoch still hold keys of the epoch before: 65536, 65280 … 256 of 1,281,167 images.
    assert moco_plan.own_key_share(facts) == pytest.approx(256 * 256 * 257 / 2 / (5004 * IMAGENET))
    assert facts.epochs_for(5005) == 2
    assert rules.advise(facts) == []


def test_numbers_of_fewer_images():
    facts = facts_of(
        "SOLVER.IMS_PER_BATCH", 64, "SOLVER.ACCUMULATE", 2, num_images=1000, ranks=1, trial=MEASURED
    )
    assert (facts.steps_per_epoch, facts.dropped, facts.steps) == (15, 40, 3000)
    assert facts.linear_lr == pytest.approx(0.0075) and facts.micro_batch == 32
    assert moco_plan.start_left(facts) == pytest.approx(0.0497, rel=1e-2)  # 0.999 ** 3000
    assert facts.seconds == 750.0
    assert (
        facts_of(num_images=2560, start=1500, trial=MEASURED).seconds == 125.0
    )  # 500 of 2000 steps are left
    assert facts_of("MODEL.ENCODER.NORM", "SyncBN").group == 256
    assert facts_of("SOLVER.OPTIMIZER", "LARS").linear_lr is None  # the rule is for SGD


def test_share_of_queries_that_meet_an_older_key_of_their_own_image():
    """The number is that of the loader's order and a first-in-first-out queue."""
    num_images, batch, queue_size, epochs = 50, 8, 20, 400
    facts = facts_of(
        "SOLVER.IMS_PER_BATCH", batch, "MODEL.MOCO.QUEUE_SIZE", queue_size, num_images=num_images
    )
    batches = rank_batches(
        num_images, seed=3, images_per_batch=batch, rank=0, world_size=1, start_iteration=0
    )
    queue, met = [], 0
    for _ in range(epochs * facts.steps_per_epoch):
        drawn = [index for _, index in next(batches)]
        met += len(set(drawn) & set(queue))
        queue = (queue + drawn)[-queue_size:]
    assert met / (epochs * facts.steps_per_epoch * batch) == pytest.approx(
        moco_plan.own_key_share(facts), rel=0.05
    )


def test_typical_side_is_read_from_headers_and_passes_over_what_is_no_image(tmp_path):
    paths = write_random_images(tmp_path / "small", 2, size=40) + write_random_images(
        tmp_path / "large", 3, size=90
    )
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    assert typical_side([*paths, tmp_path / "bad.jpg"]) == 90
    assert typical_side([tmp_path / "bad.jpg"]) is None


# ---- advice: (rule, what makes it speak, what it says to set, what keeps it silent) --------------------------

BATCH_64 = ("SOLVER.IMS_PER_BATCH", 64, "SOLVER.BASE_LR", 0.0075)
QUICK = (*BATCH_64, "MODEL.MOCO.MOMENTUM", 0.99, "MODEL.MOCO.QUEUE_SIZE", 512)
WAITS = Trial("a GPU", 100, 0.25, 0.3, 5 * 2**30, 16 * 2**30, 16)
FULL = Trial("a GPU", 100, 0.25, 0.0, 15 * 2**30, 16 * 2**30, 16)
CASES = {
    "rate too high": (
        rules.learning_rate_off,
        facts_of("SOLVER.IMS_PER_BATCH", 64),
        r"^SOLVER.BASE_LR 0.0075$",
        facts_of("SOLVER.IMS_PER_BATCH", 128),  # twice the rule
    ),
    "rate too low": (
        rules.learning_rate_off,
        facts_of("SOLVER.BASE_LR", 0.014),
        r"^SOLVER.BASE_LR 0.03$",
        facts_of("SOLVER.BASE_LR", 0.015),
    ),
    "rate never lowered": (
        rules.learning_rate_never_lowered,
        facts_of("SOLVER.EPOCHS", 160, recipe="moco_v1_R_50_200ep"),
        r"^SOLVER.STEP_EPOCHS '\(96, 128\)'$",
        facts_of("SOLVER.EPOCHS", 161, recipe="moco_v1_R_50_200ep"),
    ),
    "one group": (
        moco_plan.one_batch_norm_group,
        facts_of("SOLVER.IMS_PER_BATCH", 32),
        r"^MODEL.ENCODER.BN_GROUP_SIZE 4$",
        facts_of("SOLVER.IMS_PER_BATCH", 64),
    ),
    "SyncBN": (
        moco_plan.one_batch_norm_group,
        facts_of("MODEL.ENCODER.NORM", "SyncBN", ranks=4),
        r"^MODEL.ENCODER.NORM BN MODEL.ENCODER.BN_GROUP_SIZE 32$",
        facts_of(),
    ),
    "queue": (
        moco_plan.queue_too_large,
        facts_of(num_images=200_000),
        r"^MODEL.MOCO.QUEUE_SIZE 32768$",  # the power of two below 50,000
        facts_of(num_images=4 * 65536),
    ),
    "queue of few images, which holds no batch": (
        moco_plan.queue_too_large,
        facts_of("MODEL.MOCO.QUEUE_SIZE", 256, num_images=364),
        r"^MODEL.MOCO.QUEUE_SIZE 64 SOLVER.IMS_PER_BATCH 64 SOLVER.BASE_LR 0.0075$",
        facts_of(
            *("MODEL.MOCO.QUEUE_SIZE", 64, "SOLVER.IMS_PER_BATCH", 64, "SOLVER.BASE_LR", 0.0075),
            num_images=364,
        ),
    ),
    "slow key encoder": (
        moco_plan.key_encoder_hardly_moves,
        facts_of("SOLVER.EPOCHS", 16, num_images=32_000),  # 125 steps an epoch, 2000 in all
        r"^SOLVER.EPOCHS 40; or MODEL.MOCO.MOMENTUM 0.99 MODEL.MOCO.QUEUE_SIZE 768$",
        facts_of("SOLVER.EPOCHS", 41, num_images=32_000),
    ),
    "very few steps": (
        moco_plan.key_encoder_hardly_moves,
        facts_of("SOLVER.EPOCHS", 1, num_images=2560),  # 10 steps: no other momentum helps
        r"^SOLVER.EPOCHS 500$",
        facts_of("SOLVER.EPOCHS", 1, "MODEL.MOCO.MOMENTUM", 0.5, num_images=2560),
    ),
    "age of keys": (
        moco_plan.age_gives_keys_away,
        facts_of(*QUICK, num_images=32_000),  # 500 steps an epoch
        r"^MODEL.MOCO.MOMENTUM 0.999$",
        facts_of(*QUICK[:-1], 192, num_images=32_000),
    ),
    "age of keys, short run": (
        moco_plan.age_gives_keys_away,
        facts_of(*QUICK, "SOLVER.EPOCHS", 4, num_images=32_000),
        r"^MODEL.MOCO.MOMENTUM 0.999 SOLVER.EPOCHS 1[01]; or .*MODEL.MOCO.QUEUE_SIZE 192$",
        facts_of(*QUICK, "MODEL.MOCO.MOMENTUM", 0.999, num_images=32_000),
    ),
    "too few samples": (
        rules.few_samples,
        facts_of("SOLVER.EPOCHS", 24, num_images=4096),  # 16 steps an epoch, 98,304 images
        r"^SOLVER.EPOCHS 25 or more$",
        facts_of("SOLVER.EPOCHS", 24, "MODEL.WEIGHTS", "backbone.pkl", num_images=4096),
    ),
    "a small set": (
        rules.few_samples,
        facts_of("SOLVER.EPOCHS", 200, num_images=4096),
        r"^SOLVER.EPOCHS 2442$",
        facts_of("SOLVER.EPOCHS", 1300, num_images=4096),
    ),
    "weights": (
        rules.start_from_weights,
        facts_of(num_images=99_999),
        r"^MODEL.WEIGHTS FILE",
        facts_of("MODEL.WEIGHTS", "backbone.pkl", num_images=99_999),
    ),
    "weights, large set": (
        rules.start_from_weights,
        facts_of(num_images=9_999),
        r"^MODEL.WEIGHTS FILE",
        facts_of(num_images=100_000),
    ),
    "small images": (
        rules.views_larger_than_images,
        facts_of(side=100),
        r"^INPUT.VIEWS.SIZE 96 INPUT.VIEWS.BLUR_SIGMA '\(0.1, 0.86\)'$",
        facts_of(side=224),
    ),
    "small images without blur": (
        rules.views_larger_than_images,
        facts_of(side=100, recipe="moco_v1_R_50_200ep"),
        r"^INPUT.VIEWS.SIZE 96$",
        facts_of(side=None),
    ),
    "blur": (
        rules.blur_too_strong,
        facts_of("INPUT.VIEWS.SIZE", 64, side=100),
        r"^INPUT.VIEWS.BLUR_SIGMA '\(0.1, 0.57\)'$",
        facts_of("INPUT.VIEWS.SIZE", 64, "INPUT.VIEWS.BLUR_SIGMA", "(0.1, 0.6)", side=100),
    ),
    "waits": (
        rules.waits_for_images,
        facts_of("DATALOADER.NUM_WORKERS", 4, ranks=2, trial=WAITS),
        r"^DATALOADER.NUM_WORKERS 8$",
        facts_of("DATALOADER.NUM_WORKERS", 4, ranks=2, trial=MEASURED),
    ),
    "waits with all workers": (
        rules.waits_for_images,
        facts_of("DATALOADER.NUM_WORKERS", 8, ranks=4, machines=2, side=900, trial=WAITS),
        r"^DATALOADER.PREFETCH 4 if the disk is slow now and then$",
        facts_of("DATALOADER.NUM_WORKERS", 8),
    ),
    "workers": (
        rules.more_workers_than_cores,
        facts_of(ranks=8, trial=MEASURED),  # 8 workers each, 16 cores
        r"^DATALOADER.NUM_WORKERS 2$",
        facts_of(ranks=8, machines=4, trial=MEASURED),
    ),
    "memory": (
        rules.memory_nearly_full,
        facts_of(trial=FULL),
        r"^SOLVER.ACCUMULATE 2 \(micro-batches of 128 images instead of 256; 8 at most\), or SOLVER.ACTIVATION",
        facts_of(trial=MEASURED),
    ),
    "memory, whole groups": (
        rules.memory_nearly_full,
        facts_of("SOLVER.ACTIVATION_CHECKPOINTING", True, ranks=8, trial=FULL),
        r"^more processes, or SOLVER.IMS_PER_BATCH 128 SOLVER.BASE_LR 0.015, which is another recipe$",
        facts_of("MODEL.DEVICE", "cpu", trial=Trial("this CPU", 9, 1.0, 0.0, 15 * 2**30, None, 2)),
    ),
}


@pytest.mark.parametrize("rule, speaks, says, silent", CASES.values(), ids=CASES)
def test_a_rule_speaks_where_it_should_and_nowhere_else(rule, speaks, says, silent):
    advice = rule(speaks)
    assert re.search(says, advice.fix), advice.fix
    assert advice in rules.advise(speaks) and advice.found and advice.why.endswith(".")
    assert rule(silent) is None
    assert {case[0] for case in CASES.values()} == {
        *rules.FIRST_RULES,
        *rules.OTHER_RULES,
        *moco_plan.DICTIONARY_RULES["queue"],
    }


def test_advice_on_waiting_goes_on_to_what_costs_more():
    slow = facts_of("DATALOADER.NUM_WORKERS", 8, ranks=4, machines=2, side=900, trial=WAITS)
    why = rules.waits_for_images(slow).why
    assert (
        "tools/pack_images.py; a faster disk or more cores. The images' shorter side is 900 px, views have 224."
        in why
    )


def test_advice_on_epochs_says_what_they_cost():
    facts = facts_of("SOLVER.EPOCHS", 24, num_images=4096, trial=MEASURED)  # 25 epochs of 16 steps of 0.25 s
    assert rules.few_samples(facts).why.endswith("These epochs take 100 seconds at this speed.")


def test_what_the_advice_says_to_set_settles_it():
    """Pasting the fixes of a bad config, again and again, leaves nothing to say but that weights would help."""
    settings = {"SOLVER.IMS_PER_BATCH": "32", "INPUT.VIEWS.SIZE": "64", "MODEL.MOCO.QUEUE_SIZE": "1500"}
    counts = []
    for _ in range(4):
        pairs = [word for pair in settings.items() for word in pair]
        found = rules.advise(facts_of(*pairs, num_images=2000))
        counts.append(len(found))
        for advice in found:
            words = shlex.split(advice.fix.split(";")[0].removesuffix(" or more"))
            settings.update(zip(words[::2], words[1::2], strict=False) if "FILE" not in words else ())
    assert counts[0] >= 6 and counts[-1] == 1 and found[0].fix.startswith("MODEL.WEIGHTS"), counts


# ---- disk --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "epochs, every, keep", [(10, 1, 3), (2, 1, 3), (5, 2, 1), (10, 1, 0), (1, 4, 3), (9, 3, 0)]
)
@pytest.mark.parametrize("done", [0, 1])
def test_most_checkpoints_at_once_are_those_that_the_hook_leaves(epochs, every, keep, done):
    files, most = [], []

    def save(name, **_):
        files.append(name)
        most.append(len(files))

    keeper = SimpleNamespace(
        save=save,
        get_checkpoint_file=lambda: files[-1],
        path_manager=SimpleNamespace(exists=files.__contains__, rm=files.remove),
    )
    hook = PeriodicCheckpointer(keeper, every * 4, max_iter=epochs * 4, max_to_keep=keep or None)
    for iteration in range(done * 4, epochs * 4):
        hook.step(iteration)
    cfg = tiny_pretrain_config(EPOCHS=epochs, CHECKPOINT_EPOCHS=every, CHECKPOINT_KEEP=keep)
    expected = disk_space.checkpoints_at_most(cfg, done)
    assert expected == max(most) if done < epochs else not most


def test_size_of_a_checkpoint_is_that_of_the_file(folder):
    cfg = tiny_pretrain_config(folder)
    cfg.DATASETS.IMAGES = "images"
    trainer = PretrainTrainer(cfg)
    for parameter in trainer.method.encoder_q.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimizer.step()  # from here on it has its momentum
    trainer.checkpointer.save("model_final", iteration=0)
    size = (folder / "model_final.pth").stat().st_size
    assert disk_space.checkpoint_bytes(cfg, trainer.method) == pytest.approx(size, rel=0.01)
    cfg.SOLVER.MOMENTUM = 0.0
    assert disk_space.checkpoint_bytes(cfg, trainer.method) < 0.7 * size  # without momentum SGD keeps nothing


def test_too_little_disk_is_refused(folder, monkeypatch):
    cfg = tiny_pretrain_config(folder / "out/deeper", EPOCHS=10)
    model = torch.nn.Linear(9, 100)  # 1000 numbers, 8000 bytes with the optimizer's; 4 at once
    seen = []

    def usage(path):
        seen.append(path)
        return SimpleNamespace(free=free)

    monkeypatch.setattr(disk_space.shutil, "disk_usage", usage)
    free = 32_000
    assert disk_space.check_disk_space(cfg, model) == (32_000, 32_000)
    free = 31_999
    with pytest.raises(ValueError, match="OUTPUT_DIR .* 4 .*SOLVER.CHECKPOINT_KEEP is 3"):
        disk_space.check_disk_space(cfg, model)
    assert disk_space.check_disk_space(cfg, model, epochs_done=8) == (24_000, 31_999)
    assert set(seen) == {str(folder)}


# ---- the whole plan ------------------------------------------------------------------------------------


def test_a_plan_writes_nothing_and_its_command_starts_the_run(folder, monkeypatch, capsys):
    before = files_below(folder)
    options = (*TINY, "SOLVER.CHECKPOINT_EPOCHS", "2", "OUTPUT_DIR", "my runs/out")
    type_in(monkeypatch, "--num-gpus", "0", "--plan", *options)
    assert files_below(folder) == before
    text = capsys.readouterr().out
    for part in (
        "25 in images; shorter side 40 px",
        "8 images on 1 process",
        "2 groups of 4 images in each process",
        "3 steps, without 1 image (others each time)",
        "1 epoch, 3 steps (the paper: 1,000,800), 48 views",
        "the linear rule, 0.03 x 8 / 256, gives 0.0009375",
        "every 2 epochs, 1 at once",
        "2 steps of 8 images on this CPU",
        "for 3 steps, without kNN and checkpoints",
        "set  SOLVER.BASE_LR 0.0009375",
    ):
        assert part in text
    python, *words = shlex.split(text.splitlines()[-1])
    assert python == "python" and "--plan" not in words
    main(words[1:])
    assert (folder / "my runs/out/model_final.pth").exists()

    capsys.readouterr()
    before = files_below(folder)
    type_in(monkeypatch, "--num-gpus", "0", "--plan", "--resume", *options)
    assert "none: this run is finished" in capsys.readouterr().out
    assert files_below(folder) == before
    with pytest.raises(SystemExit):
        type_in(monkeypatch, "--num-gpus", "0", "--plan", *options)
    assert "already holds a run; continue it with --resume" in capsys.readouterr().err


def test_a_plan_of_a_resumed_run_counts_what_is_left(folder, monkeypatch, capsys):
    options = ("--num-gpus", "0", "--resume", *TINY, "SOLVER.EPOCHS", "4", "OUTPUT_DIR", "out")
    cfg = tiny_pretrain_config("out", EPOCHS=4)
    for key, value in zip(TINY[::2], TINY[1::2], strict=True):
        cfg.merge_from_list([key, value])
    cfg.SOLVER.EPOCHS, cfg.DATASETS.IMAGES, cfg.MODEL.MOCO.MOMENTUM = 4, "images", 0.999
    prepare_run_folder(cfg, resume=False)
    PretrainTrainer(cfg).checkpointer.save("model_0000002", iteration=2)
    type_in(monkeypatch, "--plan", *options)
    text = capsys.readouterr().out
    assert "12 steps" in text and "; 3 are done" in text and "for 9 steps" in text
    assert "every 1 epoch, 4 at once" in text  # of epochs 2 to 4, and the final one


def test_a_plan_for_gpus_elsewhere(folder, monkeypatch, capsys):
    """People plan on a laptop what a cluster will run."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    type_in(monkeypatch, "--num-gpus", "4", "--num-machines", "2", "--plan", *TINY, "OUTPUT_DIR", "out")
    text = capsys.readouterr().out
    assert "8 images on 8 processes, 1 each" in text and "2 groups of 4 images each over 4 processes" in text
    assert "none: this machine has no CUDA GPU" in text and "--num-gpus 4 --num-machines 2" in text
    with pytest.raises(SystemExit):
        type_in(monkeypatch, "--num-gpus", "4", *TINY, "OUTPUT_DIR", "out")
    assert "--num-gpus is 4, but this machine has 0" in capsys.readouterr().err


def test_a_trial_alone_cuts_a_group_that_spans_processes(folder):
    cfg = tiny_pretrain_config("out")
    cfg.DATASETS.IMAGES = "images"
    facts = Facts(cfg, 25, ranks=4)
    trainer = PretrainTrainer(plan_trial.trial_config(facts))
    start = trainer.method.encoder_q.conv1.weight.clone()
    generators = torch.get_rng_state()
    trial = plan_trial.run_trial(trainer)
    assert trial.steps == 2 and trial.seconds > 0 and 0 <= trial.data_wait <= 1
    assert trial.peak_bytes > 2**27 and trial.total_bytes is None
    assert not start.equal(trainer.method.encoder_q.conv1.weight)  # they were steps of training
    assert torch.get_rng_state().equal(generators)
    text = dict(plan.trial_rows(Facts(cfg, 25, ranks=4, trial=trial)))["trial"]
    assert "of 2 images on this CPU" in text and text.endswith("batch norm over 2 images instead of 4")
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.MODEL.ENCODER.BN_GROUP_SIZE) == (8, 4)


def test_a_gpu_that_is_too_small_is_refused_with_what_to_set(monkeypatch):
    facts = facts_of(ranks=2)
    with (
        pytest.raises(ValueError, match="128 .*2 GiB.*SOLVER.ACCUMULATE 2 "),
        plan_trial.explain_out_of_memory(facts),
    ):
        raise torch.cuda.OutOfMemoryError("Tried to allocate 2 GiB.\nmore")


@pytest.mark.parametrize(
    "options, message",
    [
        (
            ("SOLVER.IMS_PER_BATCH", "32", "MODEL.MOCO.QUEUE_SIZE", "32"),
            "QUEUE_SIZE is 32, but there are only 25",
        ),
        (("SOLVER.IMS_PER_BATCH", "0"), "SOLVER.IMS_PER_BATCH is 0; expected 1 or more"),
        (("MODEL.ENCODER.BN_GROUP_SIZE", "3"), "BN_GROUP_SIZE is 3; expected a divisor of the 8 images"),
        (("MODEL.MOCO.TEMPERATURE", "0.0"), "MODEL.MOCO.TEMPERATURE is 0"),
        (("INPUT.VIEWS.CROP_SCALE", "(0.5, 0.2)"), "INPUT.VIEWS.CROP_SCALE is"),
        (("DATASETS.MAX_UNREADABLE", "2.0"), "DATASETS.MAX_UNREADABLE is 2.0"),
        (("SOLVER.CHECKPOINT_EPOCHS", "0"), "SOLVER.CHECKPOINT_EPOCHS is 0; expected 1 or more"),
        (("SOLVER.MAX_ITER", "9"), "SOLVER.MAX_ITER does not apply"),
        (("TEST.KNN.IMAGES", "nowhere"), "TEST.KNN.IMAGES: 'nowhere' does not exist"),
        (("OUTPUT_DIR", "images/000.jpg/out"), "cannot be written: '.*/images/000.jpg' is no folder"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_printed(folder, monkeypatch, capsys, options, message):
    with pytest.raises(SystemExit) as stop:
        type_in(monkeypatch, "--num-gpus", "0", "--plan", *TINY, "OUTPUT_DIR", "out", *options)
    out, error = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and error.startswith("error: ")
    assert re.search(message, error), error


def test_batches_that_the_planned_processes_cannot_share_are_refused(folder, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SystemExit):
        type_in(monkeypatch, "--num-gpus", "3", "--plan", *TINY, "OUTPUT_DIR", "out")
    assert "is 8; expected a multiple of the 3 processes" in capsys.readouterr().err


def test_a_plan_that_would_fill_the_disk_is_refused(folder, monkeypatch, capsys):
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**8))
    with pytest.raises(SystemExit):
        type_in(monkeypatch, "--num-gpus", "0", "--plan", *TINY, "OUTPUT_DIR", "out")
    assert "OUTPUT_DIR 'out' has 0.09 GiB free, but 2 checkpoints" in capsys.readouterr().err


def test_a_plan_under_torchrun_is_refused(folder, monkeypatch, capsys):
    monkeypatch.setattr(plan, "processes_of_torchrun", lambda: 2)
    with pytest.raises(SystemExit):
        type_in(monkeypatch, "--plan", *TINY)
    assert "--plan runs in one process: start it without torchrun" in capsys.readouterr().err


@pytest.mark.parametrize(
    "seconds, text",
    [(90, "90 seconds"), (150, "2.5 minutes"), (10_800, "3.0 hours"), (259_200, "3.0 days")],
)
def test_durations_in_the_unit_that_a_person_would_take(seconds, text):
    assert duration(seconds) == text
