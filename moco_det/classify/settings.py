"""From the command line to a checked config of a classifier."""

import argparse

from detectron2.config import CfgNode
from detectron2.utils import comm

from moco_det.agreement import check_agreement, settings_and_code
from moco_det.config import get_cfg, known_keys, merge_config, refuse_what_does_not_apply
from moco_det.model_zoo import get_config_file
from moco_det.overlay_file import PREPROCESSING_KEYS
from moco_det.run_folder import settle_seed
from moco_det.schedule import check_schedule, keys_without_effect
from moco_det.settings_check import check_common
from moco_det.start import Start, read_start
from moco_det.views import ViewSettings

# What this stage reads; a key set outside of these would silently do nothing, so it is refused.
APPLIES = (
    "MODEL.META_ARCHITECTURE",
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "MODEL.RESNETS.STRIDE_IN_1X1",
    "CLASSIFY",
    "INPUT.FORMAT",
    "INPUT.VIEWS.RECIPE",
    "INPUT.VIEWS.SIZE",
    "INPUT.VIEWS.CROP_SCALE",
    "DATASETS.IMAGES",
    "DATALOADER.NUM_WORKERS",
    "SOLVER.IMS_PER_BATCH",
    "SOLVER.BASE_LR",
    "SOLVER.BASE_LR_END",
    "SOLVER.WARMUP_EPOCHS",
    "SOLVER.MOMENTUM",
    "SOLVER.WEIGHT_DECAY",
    "SOLVER.LR_SCHEDULER_NAME",
    "SOLVER.GAMMA",
    "SOLVER.EPOCHS",
    "SOLVER.STEP_EPOCHS",
    "SOLVER.PRECISION",
    "SOLVER.CHANNELS_LAST",
    "SOLVER.CHECKPOINT_EPOCHS",
    "SOLVER.CHECKPOINT_KEEP",
    "SOLVER.LOG_PERIOD",
    "TEST.KNN.K",
    "TEST.KNN.TEMPERATURE",
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
    "MODEL.MOCO.ARCH": "CLASSIFY.ARCH",
    "MODEL.MOCO.BN_GROUP_SIZE": "CLASSIFY.BN_GROUP_SIZE",
    "MODEL.RESNETS.DEPTH": "CLASSIFY.ARCH",
    "TEST.KNN.IMAGES": "--images",
    "TEST.KNN.PERIOD_EPOCHS": "CLASSIFY.PERIOD_EPOCHS",
}
PRECISIONS = ("float32", "bfloat16")


def build_config(args: argparse.Namespace, add_configs=()) -> tuple[CfgNode, Start | None]:
    """Recipe < what the weights say about their input < KEY VALUE pairs; called on every rank.

    Args:
        args: of :func:`moco_det.classify.command.argument_parser`.
        add_configs: functions that add a project's keys to the config.

    Returns:
        the config, and the weights that the encoder starts from.

    Raises:
        ValueError: a key is unknown or does not apply, images are missing, weights do not fit.
    """
    cfg = get_cfg()
    core_keys = known_keys(cfg)
    for add_config in add_configs:
        add_config(cfg)
    if not args.config_file:
        raise ValueError(
            "there is no --config-file; give a recipe such as "
            "configs/ImageNet-Classification/linear_R_50_100ep.yaml"
        )
    set_keys = merge_config(cfg, get_config_file(args.config_file), args.opts)
    check_common(cfg)
    if cfg.MODEL.META_ARCHITECTURE != "Classifier":
        tool = "pretrain_moco" if cfg.MODEL.META_ARCHITECTURE == "MoCo" else "train_net"
        raise ValueError(f"{args.config_file!r} is no recipe of a classifier; run it with tools/{tool}.py")
    refuse_what_does_not_apply(
        [key for key in set_keys if key in core_keys], APPLIES, "training a classifier", INSTEAD
    )
    given = args.opts[0::2]
    if "CLASSIFY.NUM_CLASSES" in set_keys:
        raise ValueError("CLASSIFY.NUM_CLASSES is not to be set, the class folders are counted; leave it out")
    _refuse_what_has_no_effect(cfg, given)
    _take(cfg, "DATASETS.IMAGES", "--images", args.images, given)
    _take(cfg, "MODEL.WEIGHTS", "--weights", args.weights, given)
    if not cfg.DATASETS.IMAGES:
        raise ValueError(
            "there are no images; give --images DIR with train/<class>/ and val/<class>/ (or test/)"
        )
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    start = _settle_encoder(cfg, given)
    check_agreement(settings_and_code(cfg))
    settle_seed(cfg, args.resume)
    check_settings(cfg)
    cfg.freeze()
    return cfg, start


def _take(cfg: CfgNode, key: str, flag: str, value: str, given: list[str]) -> None:
    if value and key in given:
        raise ValueError(f"both {flag} and {key} are given; leave one out")
    if value:
        cfg.merge_from_list([key, value])


def _refuse_what_has_no_effect(cfg: CfgNode, given: list[str]) -> None:
    """Of the keys given on the command line, since recipes hold defaults for every case."""
    frozen, live = cfg.CLASSIFY.FREEZE, cfg.CLASSIFY.FEATURES == "live"
    for prefix, without_effect, because in (
        ("CLASSIFY.BN_GROUP_SIZE", frozen, "CLASSIFY.FREEZE True"),
        ("CLASSIFY.FEATURES", not frozen, "CLASSIFY.FREEZE False"),
        ("TEST.KNN.", not frozen, "CLASSIFY.FREEZE False"),
        ("TEST.KNN.TEMPERATURE", cfg.TEST.KNN.K == 0, "TEST.KNN.K 0"),
        (
            "INPUT.VIEWS.RECIPE",
            frozen and not live,
            "CLASSIFY.FEATURES cached, which are of the central view",
        ),
        (
            "INPUT.VIEWS.CROP_SCALE",
            frozen and not live,
            "CLASSIFY.FEATURES cached, which are of the central view",
        ),
        *keys_without_effect(cfg),
    ):
        for key in given:
            if without_effect and key.startswith(prefix):
                raise ValueError(f"config key {key} has no effect with {because}; remove it, or change that")


def _settle_encoder(cfg: CfgNode, given: list[str]) -> Start | None:
    """Architecture, and how images go in, are the weights' own; a key that says otherwise is refused."""
    if not cfg.MODEL.WEIGHTS:
        if not cfg.CLASSIFY.ARCH:
            raise ValueError("CLASSIFY.ARCH is empty, and no --weights tell it; give one such as resnet50")
        if "MODEL.RESNETS.STRIDE_IN_1X1" not in given:
            cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
        return None
    start = read_start(cfg.MODEL.WEIGHTS, "CLASSIFY.ARCH", cfg.CLASSIFY.ARCH)
    cfg.CLASSIFY.ARCH = start.arch
    for field, value in start.preprocessing.to_dict().items():
        key = PREPROCESSING_KEYS[field]
        *parents, name = key.split(".")
        node = cfg
        for parent in parents:
            node = node[parent]
        if key in given and node[name] != value:
            raise ValueError(
                f"MODEL.WEIGHTS {start.path!r} were made with {key} {value}, and the command line has "
                f"{node[name]}; leave it out"
            )
        node[name] = value
    return start


def check_settings(cfg: CfgNode) -> None:
    """Refuse what cannot run, before any image is read.

    Raises:
        ValueError: with the key, the value found, what was expected and the mend.
    """
    classify, views, solver, ranks = cfg.CLASSIFY, cfg.INPUT.VIEWS, cfg.SOLVER, comm.get_world_size()
    check_schedule(cfg)
    ViewSettings(views.RECIPE, views.SIZE, views.CROP_SCALE)
    if classify.FEATURES not in ("live", "cached"):
        raise ValueError(f"CLASSIFY.FEATURES is {classify.FEATURES!r}; expected 'live' or 'cached'")
    if solver.PRECISION not in PRECISIONS:
        raise ValueError(f"SOLVER.PRECISION is {solver.PRECISION!r}; expected one of {', '.join(PRECISIONS)}")
    if classify.MORE_LRS and not classify.FREEZE:
        raise ValueError(
            f"CLASSIFY.MORE_LRS is {classify.MORE_LRS} with CLASSIFY.FREEZE False; several learning rates at once "
            "need a frozen encoder: set SOLVER.BASE_LR alone"
        )
    rates = [solver.BASE_LR, *map(float, classify.MORE_LRS)]
    if min(rates) <= 0 or len({f"{rate:g}" for rate in rates}) < len(rates):
        raise ValueError(
            f"SOLVER.BASE_LR and CLASSIFY.MORE_LRS are {rates}; expected different rates above 0"
        )
    if solver.IMS_PER_BATCH < 1 or solver.IMS_PER_BATCH % ranks:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {solver.IMS_PER_BATCH}, which {ranks} processes cannot share equally; "
            f"set it to a multiple of {ranks}"
        )
    if not classify.FREEZE:
        _check_groups(solver.IMS_PER_BATCH, classify.BN_GROUP_SIZE, ranks)
    for key, value, least in (
        ("SOLVER.LOG_PERIOD", solver.LOG_PERIOD, 1),
        ("SOLVER.CHECKPOINT_EPOCHS", solver.CHECKPOINT_EPOCHS, 1),
        ("SOLVER.CHECKPOINT_KEEP", solver.CHECKPOINT_KEEP, 0),
        ("CLASSIFY.PERIOD_EPOCHS", classify.PERIOD_EPOCHS, 1),
        ("TEST.KNN.K", cfg.TEST.KNN.K, 0),
    ):
        if value < least:
            raise ValueError(f"{key} is {value}; expected {least} or more")
    if cfg.TEST.KNN.TEMPERATURE <= 0:
        raise ValueError(f"TEST.KNN.TEMPERATURE is {cfg.TEST.KNN.TEMPERATURE}; expected above 0")


def _check_groups(batch: int, group: int, ranks: int) -> None:
    share = batch // ranks
    if group < 2 or batch % group or max(share, group) % min(share, group):
        raise ValueError(
            f"CLASSIFY.BN_GROUP_SIZE is {group}, SOLVER.IMS_PER_BATCH {batch} on {ranks} processes of {share}; "
            "expected 2 or more, a divisor of the batch, and a multiple or divisor of a process's share"
        )
