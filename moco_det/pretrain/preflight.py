"""What must hold before a run starts: the same checks for a run, its plan and its dry run. Nothing here writes."""

from moco_det.data.images import find_images, registered_images, without
from moco_det.data.order import steps_per_epoch
from moco_det.engine.run_folder import check_output
from moco_det.engine.schedule import check_schedule
from moco_det.pretrain.method import method_class
from moco_det.pretrain.monitor import KNNMonitor


def unlabeled_images(cfg) -> list[str]:
    """The images that a config names, in the order of the run.

    Raises:
        ValueError: there are none.
    """
    paths = find_images(cfg.DATASETS.IMAGES) if cfg.DATASETS.IMAGES else registered_images(cfg.DATASETS.TRAIN)
    return without(paths, cfg.DATASETS.EXCLUDE) if cfg.DATASETS.EXCLUDE else paths


def check_run(cfg, num_images: int, ranks: int, resume: bool) -> None:
    """Everything that can be known before the model is built.

    Args:
        ranks: processes of the run, which may be others than those that are there now.

    Raises:
        ValueError: with the key, the value found, what was expected and the fix.
    """
    check_output(cfg, resume)
    method_class(cfg).check_config(cfg, ranks)
    check_schedule(cfg)
    method_class(cfg).check_num_images(cfg, num_images)
    steps = steps_per_epoch(num_images, cfg.SOLVER.IMS_PER_BATCH)
    if cfg.TEST.KNN.IMAGES:
        KNNMonitor(cfg, steps)
