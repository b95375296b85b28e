"""Names and defaults that options show and the package uses.

The package imports plain values from here. The names in tables that need torch are kept here a second time, which
``tests/test_start.py`` compares with the tables.
"""

# ---- one definition, imported by the package -----------------------------------------------------------------

# Of each option that names a data set of the user's own, its words; the config key is DATASETS.<OPTION>.
DATASET_OPTIONS = {
    "coco": ("NAME", "JSON", "IMAGES"),
    "voc": ("NAME", "FOLDER", "SPLIT"),
    "semantic": ("NAME", "IMAGES", "LABELS", "CLASSES"),
}
# Endings of the files that each target of a conversion loads, the usual one first.
TARGET_ENDINGS = {
    "detectron2": (".pkl", ".pth", ".safetensors"),
    "safetensors": (".safetensors",),
    "torchvision": (".pth", ".safetensors"),
    "timm": (".pth", ".safetensors"),
    "mmdet": (".pth",),
}
# Percentiles of a channel that compute_stats' --range measured takes.
PERCENTILES = (0.1, 99.9)
# What starts a detector in `benchmark own`.
OWN_INITS = {
    "random": "random weights",
    "own": "pre-trained on your images, from random weights",
    "supervised": "supervised on ImageNet (torchvision's file)",
    "own_from_supervised": "pre-trained on your images, from the supervised weights",
    "coco_detector": "a detector trained on COCO (detectron2's R50-FPN), all of it",
}
SHARES, SCHEDULES = (1.0, 5.0, 20.0, 100.0), (1, 3)  # percent of the labels; multiples of the short schedule
OBJECTS, SCENES = "objects", "scenes"  # what images show
SPEED_JSON, SPEED_MARKDOWN = "speed.json", "speed.md"

# ---- kept twice, compared by a test --------------------------------------------------------------------------

OFFICIAL = ("moco_v1_200ep", "moco_v2_200ep", "moco_v2_800ep")
FAMILIES = (
    *("moco_det", "backbone", "moco", "moco_v3", "pycontrast", "pixpro", "simsiam", "simclr"),
    *("simclr_sthalles", "byol", "swav", "dino", "barlow_twins", "vicreg", "vissl", "densecl"),
    *("openselfsup", "openselfsup_byol", "mmpretrain", "mmdet", "smp", "torchvision_detection"),
    *("mmpretrain_moco", "mmpretrain_byol", "solo_learn", "solo_learn_1.0", "lightly", "lightly_teacher"),
    *("lightly_named", "lightly_dino", "timm", "timm_training", "torchvision_training", "huggingface"),
    *("detectron2", "caffe2", "torchvision", "onnx", "children"),
)
PREPROCESSINGS = ("torchvision", "msra", "swav", "unit")
TASKS = (
    *("voc-c4", "voc-dc5", "voc07-c4", "coco-c4", "coco-fpn", "coco-fpn-4conv1fc", "lvis-v0.5", "lvis-v1"),
    *("coco-keypoints", "coco-densepose", "cityscapes-semantic", "cityscapes-instance", "voc-semantic"),
)
ABLATIONS = ("dictionary", "momentum", "shuffle_bn", "v2", "temperature", "methods", "recipe")
ABLATION_SCALES = ("imagenette", "paper")
SUITES = ("paper", "toy", "photos")
DEMO_SCALES = ("toy", "photos", "photos_gpu")
SPEED_PARTS = (
    *(
        "loader",
        "augment",
        "momentum",
        "loss",
        "step",
        "loop",
        "shuffle",
        "finetune",
        "eval",
        "busy",
        "growth",
    ),
)
PACKED = {"shorter_side": 256, "quality": 92, "shard_mib": 1024}
TOYWORLD = {
    "seed": 0,
    "image_size": 128,
    "num_unlabeled": 4000,
    "num_per_class_train": 30,
    "num_per_class_test": 20,
    "num_train": 120,
    "num_test": 60,
}
