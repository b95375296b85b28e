"""detectron2's trainer, from weights that are checked.

The data order, the schedule and the batch do not depend on the number of GPUs; that runs on different numbers of
GPUs are equal is not promised.
"""

import logging
import weakref

from detectron2.config import CfgNode
from detectron2.data import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.engine import DefaultTrainer, hooks
from detectron2.utils import comm

from moco_det.data.labels import take_labels
from moco_det.engine.interruption import StopOnSignal
from moco_det.engine.progress import ProgressBar
from moco_det.engine.threads import SlowStepWatch
from moco_det.finetune.datasets import names_faulty_labels
from moco_det.finetune.evaluators import build_evaluator
from moco_det.finetune.hooks import BroadcastNormStatistics, EvalAtStart, RunState, same_generators
from moco_det.finetune.loaded_weights import LoadedWeights, read_weights
from moco_det.finetune.mappers import build_mapper
from moco_det.finetune.record_mapper import SkipUnreadable
from moco_det.finetune.safe_checkpointer import SafeCheckpointer
from moco_det.finetune.sampler import ResumableSampler, repeat_factors
from moco_det.finetune.weights_check import load_checked
from moco_det.utils.seeding import keyed_seed

logger = logging.getLogger(__name__)


def training_records(cfg: CfgNode) -> list[dict]:
    """The labeled images to train on, as detectron2 takes them: the fraction DATASETS.LABEL_FRACTION of them.

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
        stock = cfg.DATALOADER.SAMPLER_TRAIN not in ("TrainingSampler", "RepeatFactorTrainingSampler")
        if stock and cfg.DATASETS.LABEL_FRACTION != 1:
            raise ValueError(
                f"DATASETS.LABEL_FRACTION is {cfg.DATASETS.LABEL_FRACTION}, which goes with DATALOADER."
                "SAMPLER_TRAIN TrainingSampler or RepeatFactorTrainingSampler, not with "
                f"{cfg.DATALOADER.SAMPLER_TRAIN}"
            )
        dataset = training_records(cfg)
        mapper = SkipUnreadable(build_mapper(cfg, is_train=True), cfg, len(dataset))
        if stock:
            if start_iter:
                logger.warning(f"{cfg.DATALOADER.SAMPLER_TRAIN} cannot be advanced: the data start again")
            return build_detection_train_loader(cfg, dataset=dataset, mapper=mapper)
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
        """Evaluate as detectron2 does, without changing the random numbers of the training."""
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
        """The loader of detectron2, which after a resume continues with the images that would have followed."""
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0
        period, count = cfg.TEST.EVAL_PERIOD, cfg.TEST.PRECISE_BN.NUM_ITER

        def batches():  # runs from its first batch on: by then, start_iter is known
            used = self.start_iter // period * count if period > 0 else 0
            yield from self.build_train_loader(cfg, used)

        return hooks.PreciseBN(period, self.model, batches(), count)

    def resume_or_load(self, resume=True):
        """Do as detectron2, but check what MODEL.WEIGHTS gave, and continue a resumed run with its next batch."""
        if not self.cfg.MODEL.WEIGHTS or (resume and self.checkpointer.has_checkpoint()):
            super().resume_or_load(resume)
            if self.start_iter:
                logger.info(
                    f"Resumed at iteration {self.start_iter}: MODEL.WEIGHTS was not read and is not checked"
                )
                self.data_loader = self.build_train_loader(self.cfg, self.start_iter)
        else:
            weights = self.weights or read_weights(self.cfg.MODEL.WEIGHTS)
            load_checked(self.cfg, self.checkpointer.model, weights)
            self.run_state.weights_sha256 = weights.sha256

    def final_metrics(self) -> dict[str, float]:
        """The last evaluation, e.g. ``{"bbox/AP": 12.3}``: all that was stored after the last iteration."""
        latest = self.storage.latest()
        return {name: value for name, (value, iteration) in latest.items() if iteration >= self.max_iter}
