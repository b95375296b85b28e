"""The pre-training loop in detectron2's style, and the command line around it."""

import argparse
import contextlib
import json
import logging
import os
import time

import torch
from detectron2.engine import TrainerBase, default_argument_parser, hooks
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import JSONWriter, TensorboardXWriter
from detectron2.utils.logger import setup_logger
from PIL import Image
from torch.nn.parallel import DistributedDataParallel

from moco_det.cli import run_in_processes, settle_processes, user_errors
from moco_det.model_zoo import recipe_name
from moco_det.pretrain import plan
from moco_det.pretrain.checkpoint import PretrainCheckpointer, RunHistory, describe_changes
from moco_det.pretrain.hooks import EpochLearningRate, LogWriter, StepStatistics, UnreadableImages
from moco_det.pretrain.loader import UnreadableLog, build_loader, steps_per_epoch
from moco_det.pretrain.monitor import KNNMonitor
from moco_det.pretrain.preflight import check_disk_space, check_output, check_periods, unlabelled_images
from moco_det.pretrain.schedule import check_schedule
from moco_det.pretrain.settings import build_config
from moco_det.pretrain.start import read_start, start_from
from moco_det.progress import ProgressBar
from moco_det.run_record import FILE_NAME as RECORD
from moco_det.run_record import write_run_record
from moco_det.seeding import keyed_seed

logger = logging.getLogger(__name__)


class PretrainTrainer(TrainerBase):
    """Trains the meta-architecture of a config on unlabelled images.

    The model is called with a batch of two views and returns named scalars: those that begin with ``loss``
    are summed and minimised, the others are logged.
    """

    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.history = RunHistory()
        self.paths = unlabelled_images(cfg)
        check_schedule(cfg, len(self.paths))
        self.steps_per_epoch = steps_per_epoch(len(self.paths), cfg.SOLVER.IMS_PER_BATCH)
        self.max_iter = cfg.SOLVER.EPOCHS * self.steps_per_epoch

        torch.manual_seed(keyed_seed(cfg.SEED, "weights"))  # the same start on all ranks
        self.moco = build_model(cfg)
        self.model = self._distributed(self.moco)
        self.optimizer = torch.optim.SGD(
            [p for p in self.moco.parameters() if p.requires_grad],
            lr=cfg.SOLVER.BASE_LR,
            momentum=cfg.SOLVER.MOMENTUM,
            weight_decay=cfg.SOLVER.WEIGHT_DECAY,  # on batch norm and biases too, as in the official code
        )
        # Small gradients would vanish in float16; in other precisions it does nothing.
        self.scaler = torch.amp.GradScaler(cfg.MODEL.DEVICE, enabled=cfg.SOLVER.PRECISION == "float16")
        self.checkpointer = PretrainCheckpointer(
            self.moco,
            cfg,
            save_to_disk=comm.is_main_process(),
            num_images=len(self.paths),
            optimizer=self.optimizer,
            scaler=self.scaler,
            history=self.history,
        )

        if cfg.MODEL.WEIGHTS and not self.checkpointer.has_checkpoint():  # else the checkpoint replaces them
            start = read_start(cfg)
            start_from([self.moco.encoder_q, self.moco.encoder_k], start)
            self.history.weights, self.history.weights_sha256 = os.path.basename(start.path), start.sha256

    def _distributed(self, model):
        if comm.get_world_size() == 1:
            return model
        device_ids = [comm.get_local_rank()] if self.cfg.MODEL.DEVICE == "cuda" else None
        # Buffers are equal on all ranks already: the queue by its seed, the statistics when they are read.
        return DistributedDataParallel(model, device_ids=device_ids, broadcast_buffers=False)

    def resume(self) -> None:
        """Continue from the last checkpoint in OUTPUT_DIR, or start when there is none.

        Raises:
            ValueError: some machines have the checkpoint and some have not, or it is of another run.
        """
        found = comm.all_gather(self.checkpointer.has_checkpoint())
        if any(found) and not all(found):
            raise ValueError(
                f"{sum(found)} of {len(found)} processes find a checkpoint in OUTPUT_DIR {self.cfg.OUTPUT_DIR!r}; "
                "expected all or none: put OUTPUT_DIR on a disk that all machines share"
            )
        if all(found):
            saved = self.checkpointer.load(self.checkpointer.get_checkpoint_file())
            self._continue(saved["iteration"] + 1, saved["environment"])

    def _continue(self, iteration: int, environment: dict) -> None:
        changes = describe_changes(environment, self.checkpointer.record["environment"])
        if changes:
            logger.warning(
                f"Continued on other terms ({', '.join(changes)}): the draws are the same, rounding is not, and "
                "the numbers will part from those of an uninterrupted run"
            )
        if iteration > self.max_iter:
            raise ValueError(
                f"SOLVER.EPOCHS is {self.cfg.SOLVER.EPOCHS}, which ends at step {self.max_iter}, but the run in "
                f"{self.cfg.OUTPUT_DIR!r} is at step {iteration}; give as many epochs or more"
            )
        self.start_iter = iteration

    def run(self) -> None:
        """Train from ``start_iter`` to the end of the schedule."""
        self.model.train()
        self.batches = iter(self.loader())
        self.register_hooks(self._hooks_of_run())
        logger.info(
            f"{len(self.paths)} images, {self.steps_per_epoch} steps an epoch, {self.max_iter} steps in all; "
            f"on {comm.get_world_size()} x {self.cfg.MODEL.DEVICE}"
        )
        super().train(self.start_iter, self.max_iter)

    def loader(self):
        """The batches of this rank from ``start_iter`` on, without end."""
        cfg = self.cfg
        return build_loader(
            self.paths,
            seed=cfg.SEED,
            images_per_batch=cfg.SOLVER.IMS_PER_BATCH,
            rank=comm.get_rank(),
            world_size=comm.get_world_size(),
            start_iteration=self.start_iter,
            recipe=cfg.INPUT.VIEWS.RECIPE,
            size=cfg.INPUT.VIEWS.SIZE,
            crop_scale=cfg.INPUT.VIEWS.CROP_SCALE,
            blur_sigma=cfg.INPUT.VIEWS.BLUR_SIGMA,
            num_workers=cfg.DATALOADER.NUM_WORKERS,
        )

    def _hooks_of_run(self) -> list:
        cfg = self.cfg
        writers, unreadable = [], None
        if comm.is_main_process():
            unreadable = UnreadableLog(
                os.path.join(cfg.OUTPUT_DIR, "unreadable_images.txt"),
                max_share=cfg.DATASETS.MAX_UNREADABLE,
                num_images=len(self.paths),
                resume=self.start_iter > 0,
            )
            writers = [
                ProgressBar("pre-training", self.max_iter),
                LogWriter(self.max_iter, cfg.SOLVER.EPOCHS),
                JSONWriter(os.path.join(cfg.OUTPUT_DIR, "metrics.json")),
                TensorboardXWriter(cfg.OUTPUT_DIR),
            ]
        self.knn = KNNMonitor(cfg, self.steps_per_epoch) if cfg.TEST.KNN.IMAGES else None
        period, batch = cfg.SOLVER.LOG_PERIOD, cfg.SOLVER.IMS_PER_BATCH
        return [
            EpochLearningRate(cfg, self.optimizer, self.steps_per_epoch),
            StepStatistics(period, self.steps_per_epoch, batch),
            UnreadableImages(unreadable, period, batch),
            self.knn,
            hooks.PeriodicWriter(writers, period),
            hooks.PeriodicCheckpointer(
                self.checkpointer,
                cfg.SOLVER.CHECKPOINT_EPOCHS * self.steps_per_epoch,
                # All ranks take part in a save, one deletes.
                max_to_keep=(cfg.SOLVER.CHECKPOINT_KEEP or None) if comm.is_main_process() else None,
            ),
        ]

    def run_step(self) -> None:
        start = time.perf_counter()
        self.batch = next(self.batches)
        self.data_seconds = time.perf_counter() - start
        if self.iter == 0 and comm.is_main_process():
            save_sample_views(self.batch, os.path.join(self.cfg.OUTPUT_DIR, "sample_views.png"))

        self.optimizer.zero_grad()
        parts = [self._backward(part) for part in range(self.cfg.SOLVER.ACCUMULATE)]
        self.outputs = {name: sum(part[name] for part in parts) / len(parts) for name in parts[0]}
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _backward(self, micro_batch: int) -> dict[str, torch.Tensor]:
        """Gradients of one micro-batch, added to those before it; returns what the model did, detached."""
        count = self.cfg.SOLVER.ACCUMULATE
        last = micro_batch == count - 1
        distributed = isinstance(self.model, DistributedDataParallel)
        with self.model.no_sync() if distributed and not last else contextlib.nullcontext():
            outputs = self.model({**self.batch, "iteration": self.iter, "micro_batch": micro_batch})
            loss = sum(value for name, value in outputs.items() if name.startswith("loss")) / count
            self.scaler.scale(loss).backward()
        return {name: value.detach() for name, value in outputs.items()}


def save_sample_views(batch: dict, path: str, pairs: int = 8) -> None:
    """A picture of the first views: queries in the upper row, their keys below."""
    rows = [torch.cat(list(batch[name][:pairs]), dim=2) for name in ("query", "key")]  # 3xSx(pairs*S)
    Image.fromarray(torch.cat(rows, dim=1).permute(1, 2, 0).numpy()).save(path)


def argument_parser() -> argparse.ArgumentParser:
    """detectron2's arguments, plus ``--images``."""
    parser = default_argument_parser(
        epilog="Example: tools/pretrain_moco.py --config-file configs/Pretrain/moco_v2_R_50_200ep.yaml "
        "--images DIR --num-gpus 8 OUTPUT_DIR output/pretrain"
    )
    parser.description = "Pre-train a ResNet with MoCo on unlabelled images."
    parser.add_argument(
        "--images", default="", help="a folder of images (any depth), or a text file of paths"
    )
    parser.add_argument(
        "--overlay",
        default="",
        metavar="FILE",
        help="a YAML file merged over the recipe, below the KEY VALUE pairs (tools/compute_stats.py writes one)",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print what the run will be, after a short trial, with advice; nothing is written",
    )
    parser.set_defaults(num_gpus=None)
    return parser


def run(args: argparse.Namespace, add_configs=()) -> None:
    """Pre-train as the command line says: on ``--num-gpus`` GPUs of each machine (0: the CPU), or under torchrun.

    Raises:
        ValueError: the settings cannot run; OSError: the output cannot be written.
    """
    if args.plan:
        plan.run(args, add_configs, PretrainTrainer)
        return
    settle_processes(args)
    run_in_processes(train_process, args, args, add_configs)


def train_process(args: argparse.Namespace, add_configs=()) -> None:
    """One process of a run."""
    cfg = build_config(args, add_configs)
    prepare_output(cfg, args.resume)
    trainer = PretrainTrainer(cfg)
    if args.resume:
        trainer.resume()
    check_disk_space(cfg, trainer.moco, trainer.start_iter // trainer.steps_per_epoch)
    if trainer.start_iter < trainer.max_iter:
        trainer.run()
    elif os.path.exists(os.path.join(cfg.OUTPUT_DIR, RECORD)):
        logger.info(f"{cfg.OUTPUT_DIR} holds the finished run of {trainer.max_iter} steps; nothing to do")
        return
    if comm.is_main_process():
        write_run_record(
            cfg.OUTPUT_DIR,
            stage="pretrain",
            cfg=cfg,
            metrics=final_metrics(os.path.join(cfg.OUTPUT_DIR, "metrics.json")),
            seconds=trainer.history.seconds,
            extra={
                "task": recipe_name(args.config_file),
                "iterations": trainer.max_iter,
                "images": len(trainer.paths),
                "views": 2 * trainer.max_iter * cfg.SOLVER.IMS_PER_BATCH,
                "weights": trainer.history.weights,
                "weights_sha256": trainer.history.weights_sha256,
            },
        )


def final_metrics(path: str) -> dict[str, float]:
    """The last value of each number in a metrics.json, and of kNN accuracy the first as ``knn_untrained``."""
    latest = {}
    with open(path) as lines:
        for line in map(json.loads, lines):
            if "knn_accuracy" in line and "knn_accuracy" not in latest:
                latest["knn_untrained"] = line["knn_accuracy"]
            latest.update(line)
    return latest


def prepare_output(cfg, resume: bool) -> None:
    """Make OUTPUT_DIR with log and config; refuse to write over another run, or to continue it as another."""
    changes = check_output(cfg, resume)
    check_periods(cfg)
    comm.synchronize()
    os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="moco_det")
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="fvcore")
    for change in changes:
        logger.warning(f"--resume: {change}; the epochs to come follow the new schedule")
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if comm.is_main_process():
        with open(os.path.join(cfg.OUTPUT_DIR, "config.yaml"), "w") as file:
            file.write(cfg.dump())


@user_errors
def main(argv: list[str] | None = None) -> None:
    """``tools/pretrain_moco.py``."""
    run(argument_parser().parse_args(argv))
