"""What must hold before a run starts: the same checks for a run, its plan and its dry run. Nothing here writes."""

from moco_det.data.fast_jpeg import check_decoder
from moco_det.data.image_files import find_images, registered_images, without
from moco_det.data.sample_order import steps_per_epoch
from moco_det.engine.run_folder import check_output
from moco_det.pretrain.method import method_class
from moco_det.pretrain.monitor import KNNMonitor
from moco_det.weights.initial_weights import InitialWeights, read_initial_weights


def unlabeled_images(cfg) -> list[str]:
    """The images that a config names, in the order of the run.

    Raises:
        ValueError: there are none.
    """
    paths = find_images(cfg.DATASETS.IMAGES) if cfg.DATASETS.IMAGES else registered_images(cfg.DATASETS.TRAIN)
    return without(paths, cfg.DATASETS.EXCLUDE) if cfg.DATASETS.EXCLUDE else paths


def initial_weights(cfg) -> InitialWeights:
    """The weights that MODEL.WEIGHTS names.

    Raises:
        ValueError: as :func:`read_initial_weights`, or they were made for images normalized otherwise.
    """
    if cfg.MODEL.ENCODER.STEM != "imagenet":
        raise ValueError(
            f"MODEL.WEIGHTS is {cfg.MODEL.WEIGHTS!r} with MODEL.ENCODER.STEM {cfg.MODEL.ENCODER.STEM}, whose "
            "first convolution no known checkpoint has: leave MODEL.WEIGHTS empty, or set "
            "MODEL.ENCODER.STEM imagenet"
        )
    weights = read_initial_weights(
        cfg.MODEL.WEIGHTS, "MODEL.ENCODER.ARCH", cfg.MODEL.ENCODER.ARCH, cfg.INPUT.CHANNELS
    )
    wanted = weights.preprocessing
    if wanted.format != cfg.INPUT.FORMAT or wanted.stride_in_1x1:
        raise ValueError(
            f"MODEL.WEIGHTS {cfg.MODEL.WEIGHTS!r} want {wanted.format} images and have stride_in_1x1 "
            f"{wanted.stride_in_1x1}; pre-training has {cfg.INPUT.FORMAT} and the stride in the 3x3: take "
            "other weights"
        )
    for key, is_now, was in (
        ("INPUT.RANGE", cfg.INPUT.RANGE, wanted.range),
        ("MODEL.PIXEL_MEAN", cfg.MODEL.PIXEL_MEAN, wanted.pixel_mean),
        ("MODEL.PIXEL_STD", cfg.MODEL.PIXEL_STD, wanted.pixel_std),
    ):
        if tuple(map(float, is_now)) != tuple(map(float, was)):
            raise ValueError(
                f"MODEL.WEIGHTS {cfg.MODEL.WEIGHTS!r} were trained with {key} {list(was)}, this run has "
                f'{list(is_now)}: give {key} "{list(was)}"'
            )
    return weights


def check_run(cfg, num_images: int, ranks: int, resume: bool) -> None:
    """Everything that can be known before the model is built.

    Args:
        ranks: processes of the run, which may be others than those that are there now.

    Raises:
        ValueError: with the key, the value found, what was expected and the fix.
    """
    check_output(cfg, resume)
    check_decoder(cfg.INPUT.DECODE)
    method_class(cfg).check_config(cfg, ranks)
    method_class(cfg).check_num_images(cfg, num_images)
    steps = steps_per_epoch(num_images, cfg.SOLVER.IMS_PER_BATCH)
    if cfg.TEST.KNN.IMAGES:
        KNNMonitor(cfg, steps)
