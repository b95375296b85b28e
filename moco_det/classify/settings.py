"""Makes the checked config of a classifier from the command line."""

import argparse

from detectron2.config import CfgNode
from detectron2.utils import comm

from moco_det.config.key import CLASSIFY
from moco_det.config.overlays import CHANNEL_KEYS, PREPROCESSING_KEYS
from moco_det.config.rules import check_values, refuse_keys
from moco_det.data.image_format import ImageFormat
from moco_det.engine.agreement import check_agreement, settings_and_code
from moco_det.engine.command import read_config
from moco_det.engine.launch import check_batch, check_groups
from moco_det.engine.run_folder import choose_seed
from moco_det.weights.initial_weights import InitialWeights, read_initial_weights


def build_config(args: argparse.Namespace, add_configs=()) -> tuple[CfgNode, InitialWeights | None]:
    """Recipe < what the weights say about their input < KEY VALUE pairs; called on every rank.

    Args:
        args: of :func:`moco_det.classify.command.argument_parser`.
        add_configs: functions that add a project's keys to the config.

    Returns:
        the config, and the weights that the encoder starts from.

    Raises:
        ValueError: a key is unknown or does not apply, images are missing, weights do not fit.
    """
    cfg, set_keys = read_config(args, add_configs, "configs/ImageNet-Classification/linear_R_50_100ep.yaml")
    if cfg.MODEL.META_ARCHITECTURE != "Classifier":
        tool = "pretrain_moco" if cfg.MODEL.META_ARCHITECTURE == "MoCo" else "train_net"
        raise ValueError(
            f"{args.config_file!r} is no recipe of a classifier, its MODEL.META_ARCHITECTURE is "
            f"{cfg.MODEL.META_ARCHITECTURE!r}; run it with tools/{tool}.py"
        )
    given = args.opts[0::2]
    check_values(cfg, CLASSIFY)
    refuse_keys(cfg, set_keys, given, CLASSIFY)
    _take(cfg, "DATASETS.IMAGES", "--images", args.images, given)
    _take(cfg, "MODEL.WEIGHTS", "--weights", args.weights, given)
    if not cfg.DATASETS.IMAGES:
        raise ValueError(
            "there are no images; give --images DIR with train/<class>/ and val/<class>/ (or test/)"
        )
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    weights = _take_encoder(cfg, given)
    check_agreement(settings_and_code(cfg))
    choose_seed(cfg, args.resume)
    check_settings(cfg)
    cfg.freeze()
    return cfg, weights


def _take(cfg: CfgNode, key: str, flag: str, value: str, given: list[str]) -> None:
    if value and key in given:
        raise ValueError(f"both {flag} and {key} are given; leave one out")
    if value:
        cfg.merge_from_list([key, value])


def _take_encoder(cfg: CfgNode, given: list[str]) -> InitialWeights | None:
    """Architecture, and how images go in, are the weights' own; a key that says otherwise is refused."""
    if not cfg.MODEL.WEIGHTS:
        if not cfg.CLASSIFY.ARCH:
            raise ValueError("CLASSIFY.ARCH is empty, and no --weights tell it; give one such as resnet50")
        if "MODEL.RESNETS.STRIDE_IN_1X1" not in given:
            cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
        return None
    weights = read_initial_weights(cfg.MODEL.WEIGHTS, "CLASSIFY.ARCH", cfg.CLASSIFY.ARCH)
    cfg.CLASSIFY.ARCH = weights.arch
    wanted = {"channels": weights.preprocessing.channels, "range": [], **weights.preprocessing.to_dict()}
    for field, key in {**PREPROCESSING_KEYS, **CHANNEL_KEYS}.items():
        value = wanted[field]
        *parents, name = key.split(".")
        node = cfg
        for parent in parents:
            node = node[parent]
        if key in given and (list(node[name]) if field == "range" else node[name]) != value:
            raise ValueError(
                f"MODEL.WEIGHTS {weights.path!r} were made with {key} {value}, and the command line has "
                f"{node[name]}; leave it out"
            )
        node[name] = value
    return weights


def check_settings(cfg: CfgNode) -> None:
    """Refuse settings that do not fit each other, before any image is read.

    Raises:
        ValueError: with the keys, the values found, what was expected and the fix.
    """
    solver, ranks = cfg.SOLVER, comm.get_world_size()
    ImageFormat.from_config(cfg)
    rates = [solver.BASE_LR, *map(float, cfg.CLASSIFY.MORE_LRS)]
    if len({f"{rate:g}" for rate in rates}) < len(rates):
        raise ValueError(f"SOLVER.BASE_LR and CLASSIFY.MORE_LRS are {rates}; expected different rates")
    check_batch(solver.IMS_PER_BATCH, ranks)
    if not cfg.CLASSIFY.FREEZE:
        check_groups("CLASSIFY.BN_GROUP_SIZE", cfg.CLASSIFY.BN_GROUP_SIZE, solver.IMS_PER_BATCH, ranks)
