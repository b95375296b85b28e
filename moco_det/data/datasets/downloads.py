"""Where the paper's data sets come from, and how many images they officially have."""

import os
import re

from moco_det.data.datasets.segmentation import MAKE_TRAIN_IDS, TRAIN_IDS
from moco_det.utils.files import datasets_root

_VOC = "host.robots.ox.ac.uk/pascal/VOC"
_CITYSCAPES = "www.cityscapes-dataset.com (needs an account)"
_UNPACK = "unpack it, and put what is in VOCdevkit/{0} into {0} in the folder of the data sets"
# SBD's labels are Matlab files, and its lists are others: train_aug is both, plus VOC's train, without VOC's val.
_SBD = (
    "fetch benchmark.tgz (SBD, Hariharan et al. 2011) from www2.eecs.berkeley.edu/Research/Projects/CS/vision/"
    "grouping/semantic_contours; then, in a checkout of mmsegmentation: python "
    "tools/dataset_converters/voc_aug.py $DETECTRON2_DATASETS benchmark_RELEASE; rename its trainaug.txt to "
    "train_aug.txt, and copy "
    "VOC2012/SegmentationClass/*.png into VOC2012/SegmentationClassAug"
)
# The first pattern that is found in "<name>:<path>" says what to do; \1 is what its first group found.
_SOURCES = tuple(
    (re.compile(pattern), text)
    for pattern, text in (
        (r"VOC2012/(SegmentationClassAug|.*train_aug\.txt)", _SBD),
        (r"VOC2012/", f"fetch VOCtrainval_11-May-2012.tar from {_VOC}, {_UNPACK.format('VOC2012')}"),
        (r"test:.*VOC2007/", f"fetch VOCtest_06-Nov-2007.tar from {_VOC}, {_UNPACK.format('VOC2007')}"),
        (r"VOC2007/", f"fetch VOCtrainval_06-Nov-2007.tar from {_VOC}, {_UNPACK.format('VOC2007')}"),
        (
            r"coco/annotations/(?:instances|person_keypoints)_(?:train|val)(20\d\d)\.json",
            r"fetch annotations_trainval\1.zip from cocodataset.org, unpack it in coco",
        ),
        (r"coco/((?:train|val|test)20\d\d)", r"fetch \1.zip from cocodataset.org, unpack it in coco"),
        (
            r"lvis/(lvis_v[\d.]+_(?:train|val)\.json)",
            r"fetch \1.zip from www.lvisdataset.org, unpack it in lvis",
        ),
        (r"cityscapes/leftImg8bit", f"fetch leftImg8bit_trainvaltest.zip from {_CITYSCAPES}"),
        (r"cityscapes/gtFine", f"fetch gtFine_trainvaltest.zip from {_CITYSCAPES}"),
    )
)

_COCO = "instances_*2017.json of annotations_trainval2017.zip; cocodataset.org rounds to 118K and 5K"
_CORDTS = "Cordts et al. 2016, The Cityscapes Dataset"
_LVIS = "www.lvisdataset.org/dataset"
# Number of images, and who says so.
OFFICIAL_COUNTS = {
    "voc_2007_trainval": (5011, f"{_VOC}/voc2007/dbstats.html"),
    "voc_2007_test": (4952, f"{_VOC}/voc2007/dbstats.html"),
    "voc_2012_trainval": (11540, "ImageSets/Main/trainval.txt of VOCtrainval_11-May-2012.tar"),
    "voc_2012_sem_seg_train_aug": (10582, "MoCo, A.5; Chen et al. 2017, DeepLabv3"),
    "coco_2017_train": (118287, _COCO),
    "coco_2017_val": (5000, _COCO),
    "moco_lvis_v1_train": (100170, _LVIS),
    "moco_lvis_v1_val": (19809, _LVIS),
    "cityscapes_fine_sem_seg_train": (2975, _CORDTS),
    "cityscapes_fine_sem_seg_val": (500, _CORDTS),
    "cityscapes_fine_instance_seg_train": (2975, _CORDTS),
    "cityscapes_fine_instance_seg_val": (500, _CORDTS),
}


def how_to_get(name: str, path: str) -> str:
    """What to do about a file or folder of a data set that is not there: an archive and its site, or a command."""
    if path.endswith(TRAIN_IDS):  # no archive holds them
        return MAKE_TRAIN_IDS
    if name.startswith("toy_"):
        world = os.path.join(datasets_root(), "toyworld")
        return f"make it with tools/make_toyworld.py --output {world}"
    for pattern, text in _SOURCES:
        found = pattern.search(f"{name}:{path.replace(os.sep, '/')}")
        if found:
            return found.expand(text)
    return "put it there"
