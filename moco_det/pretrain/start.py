"""MODEL.WEIGHTS in pre-training: what the encoders start from, and whether that fits."""

from moco_det.weights.loading import Start, read_start


def read_pretraining_start(cfg) -> Start:
    """The weights that MODEL.WEIGHTS names.

    Raises:
        ValueError: as :func:`read_start`, or they were made for images normalized otherwise.
    """
    if cfg.MODEL.ENCODER.STEM != "imagenet":
        raise ValueError(
            f"MODEL.WEIGHTS is {cfg.MODEL.WEIGHTS!r} with MODEL.ENCODER.STEM {cfg.MODEL.ENCODER.STEM}, whose "
            "first convolution no known checkpoint has: leave MODEL.WEIGHTS empty, or set "
            "MODEL.ENCODER.STEM imagenet"
        )
    start = read_start(cfg.MODEL.WEIGHTS, "MODEL.ENCODER.ARCH", cfg.MODEL.ENCODER.ARCH, cfg.INPUT.CHANNELS)
    wanted = start.preprocessing
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
    return start
