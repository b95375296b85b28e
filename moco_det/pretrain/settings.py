"""From the command line to a checked config of pre-training."""

import argparse

from detectron2.config import CfgNode

from moco_det.agreement import check_agreement, settings_and_code
from moco_det.config import get_cfg, known_keys, merge_config, refuse_what_does_not_apply
from moco_det.model_zoo import get_config_file
from moco_det.own_datasets import settle_datasets
from moco_det.pretrain.method import PretrainMethod, method_class
from moco_det.run_folder import settle_seed
from moco_det.settings_check import check_common
from moco_det.views import ViewSettings

# What pre-training reads, and the keys that its method names; a key set outside of these would silently do
# nothing, so it is refused.
APPLIES = (
    "MODEL.META_ARCHITECTURE",
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "INPUT.FORMAT",
    "INPUT.VIEWS",
    "DATASETS.IMAGES",
    "DATASETS.TRAIN",
    "DATASETS.COCO",
    "DATASETS.VOC",
    "DATASETS.SEMANTIC",
    "DATASETS.REGISTER",
    "DATASETS.EXCLUDE",
    "DATASETS.MAX_UNREADABLE",
    "DATALOADER.NUM_WORKERS",
    "DATALOADER.PREFETCH",
    "SOLVER.IMS_PER_BATCH",
    "SOLVER.BASE_LR",
    "SOLVER.BASE_LR_END",
    "SOLVER.WARMUP_EPOCHS",
    "SOLVER.OPTIMIZER",
    "SOLVER.LARS_TRUST",
    "SOLVER.MOMENTUM",
    "SOLVER.WEIGHT_DECAY",
    "SOLVER.LR_SCHEDULER_NAME",
    "SOLVER.GAMMA",
    "SOLVER.EPOCHS",
    "SOLVER.STEP_EPOCHS",
    "SOLVER.PRECISION",
    "SOLVER.CLIP_GRADIENTS",
    "SOLVER.ACCUMULATE",
    "SOLVER.ACTIVATION_CHECKPOINTING",
    "SOLVER.CHANNELS_LAST",
    "SOLVER.CHECKPOINT_EPOCHS",
    "SOLVER.CHECKPOINT_KEEP",
    "SOLVER.LOG_PERIOD",
    "TEST.KNN",
    "OUTPUT_DIR",
    "SEED",
    "CUDNN_BENCHMARK",
    "VERSION",
)
INSTEAD = {
    "SOLVER.MAX_ITER": "SOLVER.EPOCHS",
    "SOLVER.STEPS": "SOLVER.STEP_EPOCHS",
    "SOLVER.CHECKPOINT_PERIOD": "SOLVER.CHECKPOINT_EPOCHS",
    "SOLVER.AMP.ENABLED": "SOLVER.PRECISION",
    "MODEL.RESNETS.DEPTH": "MODEL.MOCO.ARCH",
}


def build_config(args: argparse.Namespace, add_configs=()) -> CfgNode:
    """Recipe < ``--overlay`` < KEY VALUE pairs, and ``--images``, checked; called on every rank.

    Args:
        args: of :func:`moco_det.pretrain.command.argument_parser`.
        add_configs: functions that add a project's keys to the config.

    Raises:
        ValueError: a key is unknown or does not apply, the input is missing or named twice.
    """
    cfg = get_cfg()
    core_keys = known_keys(cfg)
    for add_config in add_configs:
        add_config(cfg)
    if not args.config_file:
        raise ValueError(
            "there is no --config-file; give a recipe such as configs/Pretrain/moco_v2_R_50_200ep.yaml"
        )
    overlays = (args.overlay,) if args.overlay else ()
    set_keys = merge_config(cfg, get_config_file(args.config_file), args.opts, overlays)
    method = method_class(cfg)
    check_common(cfg)
    refuse_what_does_not_apply(
        [key for key in set_keys if key in core_keys],
        (*APPLIES, *method.uses),
        f"pre-training with {cfg.MODEL.META_ARCHITECTURE}",
        INSTEAD,
    )
    _refuse_what_has_no_effect(cfg, method, args.opts[0::2])
    if args.images:
        cfg.DATASETS.IMAGES = args.images
    if args.exclude:
        cfg.DATASETS.EXCLUDE = args.exclude
    settle_datasets(cfg, args)
    if bool(cfg.DATASETS.IMAGES) == bool(cfg.DATASETS.TRAIN):
        raise ValueError(
            f"DATASETS.IMAGES is {cfg.DATASETS.IMAGES!r} and DATASETS.TRAIN {tuple(cfg.DATASETS.TRAIN)}; "
            "expected one of them: give --images DIR (or a list file), or DATASETS.TRAIN \"('coco_2017_train',)\""
        )
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    check_agreement(settings_and_code(cfg))
    settle_seed(cfg, args.resume)
    cfg.freeze()
    return cfg


def _refuse_what_has_no_effect(cfg: CfgNode, method: type[PretrainMethod], given: list[str]) -> None:
    """Of the keys given on the command line, since recipes hold defaults for every case."""
    solver, schedule, views = cfg.SOLVER, cfg.SOLVER.LR_SCHEDULER_NAME, ViewSettings.from_config(cfg)
    for prefix, without_effect, because in (
        *method.without_effect(cfg),
        ("MODEL.MOCO.BN_GROUP_SIZE", cfg.MODEL.MOCO.NORM != "BN", f"MODEL.MOCO.NORM {cfg.MODEL.MOCO.NORM}"),
        ("SOLVER.STEP_EPOCHS", schedule != "EpochMultiStepLR", schedule),
        ("SOLVER.GAMMA", schedule != "EpochMultiStepLR", schedule),
        ("SOLVER.BASE_LR_END", schedule != "CosineLR", schedule),
        ("SOLVER.LARS_TRUST", solver.OPTIMIZER != "LARS", f"SOLVER.OPTIMIZER {solver.OPTIMIZER}"),
        *(
            (f"SOLVER.CLIP_GRADIENTS.{name}", not solver.CLIP_GRADIENTS.ENABLED, "ENABLED False")
            for name in ("CLIP_TYPE", "CLIP_VALUE", "NORM_TYPE")
        ),
        ("DATALOADER.PREFETCH", cfg.DATALOADER.NUM_WORKERS == 0, "DATALOADER.NUM_WORKERS 0"),
        ("INPUT.VIEWS.BLUR_SIGMA", not views.blurs, f"INPUT.VIEWS.RECIPE {views.recipe}"),
        *(
            (f"INPUT.VIEWS.{name}", views.small_crops == 0, "INPUT.VIEWS.SMALL_CROPS 0")
            for name in ("SMALL_SIZE", "SMALL_CROP_SCALE")
        ),
        ("TEST.KNN.", not cfg.TEST.KNN.IMAGES, "an empty TEST.KNN.IMAGES"),
    ):
        for key in given:
            if without_effect and key.startswith(prefix):
                raise ValueError(f"config key {key} has no effect with {because}; remove it, or change that")
