"""Fine-tuning as detectron2 does it, from weights that are checked: ``run`` behind ``tools/train_net.py``.

The data order, the schedule and the batch do not depend on the number of GPUs; that runs on different numbers of
GPUs are equal is not promised.
"""

import argparse
import logging
import os
import random
import weakref
from collections.abc import Callable, Sequence

from detectron2.config import CfgNode
from detectron2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.engine import DefaultTrainer, default_argument_parser, default_setup, hooks
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from moco_det.config import get_cfg, merge_config
from moco_det.config.key import FINETUNE
from moco_det.config.rules import check_values, refuse_keys
from moco_det.data.datasets.own import add_dataset_options, register_datasets, settle_datasets
from moco_det.data.datasets.toy import register_toy_datasets
from moco_det.data.labels import take_labels
from moco_det.engine.agreement import check_agreement, settings_and_code
from moco_det.engine.interruption import StopOnSignal
from moco_det.engine.launch import num_processes, processes_of_torchrun, run_in_processes, settle_processes
from moco_det.engine.progress import ProgressBar
from moco_det.engine.record import FILE_NAME as RECORD
from moco_det.engine.record import write_run_record
from moco_det.engine.run_folder import log_to
from moco_det.engine.threads import SlowStepWatch, settle_threads
from moco_det.finetune.classes import classes_rows, complete_metadata, settle_classes
from moco_det.finetune.datasets import names_faulty_labels
from moco_det.finetune.dry_run import dry_run
from moco_det.finetune.evaluators import build_evaluator
from moco_det.finetune.hooks import (
    BroadcastNormStatistics,
    EvalAtStart,
    RunState,
    same_generators,
    seed_of_checkpoint,
)
from moco_det.finetune.inits import Init, read_init
from moco_det.finetune.loaded_weights import LoadedWeights, read_weights
from moco_det.finetune.mappers import build_mapper
from moco_det.finetune.preflight import CHECKPOINT, check_run, refuse_other_stages, resumes, used_datasets
from moco_det.finetune.record_mapper import SkipUnreadable
from moco_det.finetune.safe_checkpointer import SafeCheckpointer
from moco_det.finetune.sampler import ResumableSampler, repeat_factors
from moco_det.finetune.samples import write_sample_detections
from moco_det.finetune.weights_check import check_backbone, check_detector, check_preprocessing
from moco_det.model_zoo import get_config_file, recipe_name
from moco_det.model_zoo.tasks import task_name
from moco_det.utils.errors import user_errors
from moco_det.utils.seeding import keyed_seed

logger = logging.getLogger(__name__)


def training_records(cfg: CfgNode) -> list[dict]:
    """The labeled images to train on, as detectron2 takes them: the share DATASETS.LABEL_FRACTION of them.

    Raises:
        ValueError: the labels cannot be read.
    """
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
    with names_faulty_labels(cfg.DATASETS.TRAIN):
        dataset = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN,
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            min_keypoints=keypoints,
            proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
        )
    return take_labels(dataset, cfg.DATASETS.LABEL_FRACTION, cfg.SEED)


class Trainer(DefaultTrainer):
    """detectron2's trainer with evaluators by metadata, checked weights and an exact resume."""

    def __init__(self, cfg, weights: LoadedWeights | None = None):
        """
        Args:
            weights: what MODEL.WEIGHTS names, where it was read before.
        """
        super().__init__(cfg)
        self.weights = weights

    @classmethod
    def build_train_loader(cls, cfg, start_iter: int = 0):
        """The stock loader, from the data of iteration ``start_iter`` on."""
        if cfg.DATALOADER.SAMPLER_TRAIN not in ("TrainingSampler", "RepeatFactorTrainingSampler"):
            if cfg.DATASETS.LABEL_FRACTION != 1:
                raise ValueError(
                    f"DATASETS.LABEL_FRACTION is {cfg.DATASETS.LABEL_FRACTION}, which goes with DATALOADER."
                    "SAMPLER_TRAIN TrainingSampler or RepeatFactorTrainingSampler, not with "
                    f"{cfg.DATALOADER.SAMPLER_TRAIN}"
                )
            if start_iter:
                logger.warning(f"{cfg.DATALOADER.SAMPLER_TRAIN} cannot be advanced: the data start anew")
            return build_detection_train_loader(cfg, mapper=build_mapper(cfg, is_train=True))
        dataset = training_records(cfg)
        grouped = cfg.DATALOADER.ASPECT_RATIO_GROUPING
        sampler = ResumableSampler(
            [grouped and record["width"] > record["height"] for record in dataset],
            batch_size=cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size(),
            seed=keyed_seed(cfg.SEED, "sampler"),
            batches=start_iter,
            repeat_factors=repeat_factors(cfg, dataset),
        )
        # A seed of its own keeps the loader from drawing the workers' seed from the training's generator.
        seed = keyed_seed(cfg.SEED, "loader", start_iter, comm.get_rank())
        mapper = SkipUnreadable(build_mapper(cfg, is_train=True), cfg, len(dataset))
        return build_detection_train_loader(cfg, dataset=dataset, sampler=sampler, seed=seed, mapper=mapper)

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        with names_faulty_labels([dataset_name]):
            return build_detection_test_loader(cfg, dataset_name, mapper=build_mapper(cfg, is_train=False))

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        """As detectron2's, but evaluating changes none of the draws of the training."""
        with same_generators():
            return super().test(cfg, model, evaluators)

    def build_writers(self):
        """detectron2's writers, and a progress bar on a terminal."""
        return [*super().build_writers(), ProgressBar("fine-tuning", self.max_iter)]

    def build_hooks(self):
        """detectron2's hooks, with ours between PreciseBN and the checkpoint."""
        # Here, since the hooks are the first to hold it.
        self.checkpointer = SafeCheckpointer(self.model, self.cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.run_state = RunState(self.cfg.SEED, self.cfg.SOLVER.CHECKPOINT_PERIOD)
        stock = [
            self._precise_bn() if isinstance(hook, hooks.PreciseBN) else hook
            for hook in super().build_hooks()
            if hook is not None
        ]
        if self.cfg.TEST.EVAL_AT_START:
            stock.append(EvalAtStart(lambda: self.test(self.cfg, self.model)))
        later = (hooks.PeriodicCheckpointer, hooks.EvalHook)
        place = next(i for i, hook in enumerate(stock) if isinstance(hook, later))
        return [
            SlowStepWatch(self.cfg),  # first, so that it measures the step alone
            *stock[:place],
            BroadcastNormStatistics(self.cfg.TEST.EVAL_PERIOD),
            self.run_state,
            *stock[place:],
            StopOnSignal(self._save_before_stop),
        ]

    def _save_before_stop(self) -> None:
        self.run_state.gather()
        self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)

    def _precise_bn(self) -> hooks.PreciseBN:
        """detectron2's; but after a resume, its images are those that it would have gone on with."""
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0
        period, count = cfg.TEST.EVAL_PERIOD, cfg.TEST.PRECISE_BN.NUM_ITER

        def batches():  # runs from its first batch on: by then, start_iter is known
            used = self.start_iter // period * count if period > 0 else 0
            yield from self.build_train_loader(cfg, used)

        return hooks.PreciseBN(period, self.model, batches(), count)

    def resume_or_load(self, resume=True):
        """As detectron2's; what MODEL.WEIGHTS gave is checked, and a resumed run goes on with its next batch."""
        if not self.cfg.MODEL.WEIGHTS or (resume and self.checkpointer.has_checkpoint()):
            super().resume_or_load(resume)
            if self.start_iter:
                logger.info(
                    f"Resumed at iteration {self.start_iter}: MODEL.WEIGHTS was not read and is not checked"
                )
                self.data_loader = self.build_train_loader(self.cfg, self.start_iter)
        else:
            weights = self.weights or read_weights(self.cfg.MODEL.WEIGHTS)
            self.checkpointer.load_weights(weights)
            self.run_state.weights_sha256 = weights.sha256
            if weights.is_detector:
                check_detector(self.checkpointer.model, weights, complete=False)
            else:
                check_backbone(self.cfg, self.checkpointer.model, weights)

    def final_metrics(self) -> dict[str, float]:
        """The last evaluation, e.g. ``{"bbox/AP": 12.3}``: all that was stored after the last iteration."""
        latest = self.storage.latest()
        return {name: value for name, (value, iteration) in latest.items() if iteration >= self.max_iter}


def make_parser() -> argparse.ArgumentParser:
    """detectron2's arguments and ``--init``; without ``--num-gpus``, one GPU where there is one, else the CPU."""
    parser = default_argument_parser()
    parser.add_argument(
        "--init",
        metavar="NAME|FILE",
        help="how the backbone starts: an overlay of configs/init (random, supervised_msra, "
        "supervised_torchvision, moco), a YAML file, or the backbone.pkl that convert wrote; merged over the "
        "recipe, below the KEY VALUE pairs",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, print what the run will be, write nothing",
    )
    add_dataset_options(parser)
    parser.set_defaults(num_gpus=None)
    return parser


def run(args: argparse.Namespace, add_configs: Sequence[Callable[[CfgNode], None]] = ()) -> None:
    """Train (or evaluate) as ``args`` of :func:`make_parser` say; everything is checked before it starts.

    Args:
        add_configs: functions that add a project's keys to the config.

    Raises:
        ValueError: a setting that cannot work; says what was found, what was expected, and the fix.
    """
    register_toy_datasets()  # again: a toy world may have been made since the import
    args = argparse.Namespace(**vars(args))
    if not args.config_file:
        raise ValueError("there is no --config-file; give a recipe such as toy/faster_rcnn_R_18_FPN")
    args.config_file = get_config_file(args.config_file)
    init = read_init(args.init) if args.init else None
    cfg = get_cfg()
    for add_config in add_configs:
        add_config(cfg)
    set_keys = merge_config(cfg, args.config_file, args.opts, (init.overlay,) if init else ())
    refuse_other_stages(cfg, args.config_file)
    check_values(cfg, FINETUNE)
    refuse_keys(cfg, set_keys, args.opts[0::2], FINETUNE)
    if init and "MODEL.WEIGHTS" not in args.opts[0::2]:
        cfg.MODEL.WEIGHTS = init.weights
    settle_datasets(cfg, args)
    settle_classes(cfg, used_datasets(cfg, args), args.config_file, args.opts)
    _settle_device(cfg, args)
    _settle_seed(cfg, args)
    cfg.freeze()
    if args.dry_run:
        dry_run(cfg, args, init, add_configs, training_records)
        return
    _, weights = check_run(cfg, args, init)
    run_in_processes(_work, args, cfg, args, weights, init)


def _settle_device(cfg: CfgNode, args: argparse.Namespace) -> None:
    settle_processes(args)
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    processes = num_processes(args)
    if args.num_gpus == 0 and processes > 1:
        raise ValueError(
            f"{processes} processes were asked for on CPUs; detectron2's trainer needs a GPU for each "
            "where there are several: take one process, or GPUs"
        )
    if cfg.SOLVER.IMS_PER_BATCH % processes:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} does not divide among {processes} GPUs; "
            "take another number of GPUs (another batch is another schedule)"
        )


def _settle_seed(cfg: CfgNode, args: argparse.Namespace) -> None:
    """A run without a seed gets one here, so that run.json names it; a resumed one takes its checkpoint's."""
    if cfg.SEED >= 0:
        return
    if resumes(cfg, args):
        with open(os.path.join(cfg.OUTPUT_DIR, CHECKPOINT)) as file:
            cfg.SEED = seed_of_checkpoint(os.path.join(cfg.OUTPUT_DIR, file.read().strip()))
    else:
        if args.num_machines > 1 or processes_of_torchrun() > 1:
            raise ValueError("SEED is -1; processes started apart need the same: give SEED 1 (or any other)")
        cfg.SEED = random.SystemRandom().randrange(2**31)


def _work(cfg: CfgNode, args: argparse.Namespace, weights: LoadedWeights | None, init: Init | None) -> None:
    """What each process does."""
    check_agreement(settings_and_code(cfg))
    register_datasets(cfg)
    log_to(cfg.OUTPUT_DIR, "moco_det")
    default_setup(cfg, args)
    if weights is not None:
        check_preprocessing(cfg, weights, init)  # again, for the log
    for name in used_datasets(cfg, args):
        complete_metadata(name)
    for key, text in classes_rows(cfg, used_datasets(cfg, args)[0]):
        logger.info(f"{key} is {text}")
    if cfg.MODEL.DEVICE == "cpu":
        logger.info("On the CPU, as --num-gpus 0 asks or because there is no GPU")
        settle_threads(cfg)
    if args.eval_only:
        _evaluate(cfg, weights)
        return
    trainer = Trainer(cfg, weights)
    trainer.resume_or_load(resume=args.resume)
    if trainer.start_iter >= trainer.max_iter:
        finished = f"{cfg.OUTPUT_DIR} holds the finished run of {trainer.max_iter} iterations"
        if os.path.exists(os.path.join(cfg.OUTPUT_DIR, RECORD)):
            logger.info(f"{finished}; nothing to do")
            return
        logger.info(f"{finished}, but no {RECORD}; evaluating for it, nothing to train")
    trainer.train()  # of a finished run, the evaluation alone
    if comm.is_main_process():
        _record(trainer, args, init)


def _record(trainer: Trainer, args: argparse.Namespace, init: Init | None) -> None:
    cfg = trainer.cfg
    if cfg.DATASETS.TEST and cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN":
        write_sample_detections(cfg, trainer.checkpointer.model)
    extra = {
        "init": init.name if init else "none",
        "task": task_name(recipe_name(args.config_file), cfg.DATASETS.LABEL_FRACTION),
        "iterations": trainer.max_iter,
        # An address, or a file's name: its path says something of this machine only, its sha256 says which.
        "weights": cfg.MODEL.WEIGHTS if "://" in cfg.MODEL.WEIGHTS else os.path.basename(cfg.MODEL.WEIGHTS),
        "weights_sha256": trainer.run_state.weights_sha256,
    }
    metrics, seconds = trainer.final_metrics(), trainer.run_state.seconds
    write_run_record(cfg.OUTPUT_DIR, stage="finetune", cfg=cfg, metrics=metrics, seconds=seconds, extra=extra)


def _evaluate(cfg: CfgNode, weights: LoadedWeights | None) -> None:
    """Measure a detector: that of the weights, or of the newest checkpoint in OUTPUT_DIR where there are none."""
    model = Trainer.build_model(cfg)
    checkpointer = SafeCheckpointer(model, save_dir=cfg.OUTPUT_DIR)
    weights = weights or read_weights(checkpointer.get_checkpoint_file())
    checkpointer.load_weights(weights)
    check_detector(model, weights, complete=True)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    run(make_parser().parse_args(argv))
