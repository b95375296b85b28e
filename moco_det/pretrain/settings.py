"""Makes the checked config of pre-training from the command line."""

import argparse

from detectron2.config import CfgNode

from moco_det.config.key import PRETRAIN
from moco_det.config.rules import check_values, refuse_keys
from moco_det.data.datasets.own import settle_datasets
from moco_det.engine.agreement import check_agreement, settings_and_code
from moco_det.engine.command import read_config
from moco_det.engine.run_folder import choose_seed
from moco_det.pretrain.method import method_class


def build_config(args: argparse.Namespace, add_configs=()) -> CfgNode:
    """Recipe < ``--overlay`` < KEY VALUE pairs, and ``--images``, checked; called on every rank.

    Args:
        args: of :func:`moco_det.pretrain.command.argument_parser`.
        add_configs: functions that add a project's keys to the config.

    Raises:
        ValueError: a key is unknown or does not apply, the input is missing or named twice.
    """
    overlays = (args.overlay,) if args.overlay else ()
    cfg, set_keys = read_config(args, add_configs, "configs/Pretrain/moco_v2_R_50_200ep.yaml", overlays)
    method = method_class(cfg)
    check_values(cfg, PRETRAIN, method.uses)
    refuse_keys(cfg, set_keys, args.opts[0::2], PRETRAIN, method.uses)
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
    choose_seed(cfg, args.resume)
    cfg.freeze()
    return cfg
