"""Reading foreign checkpoints: any known file in, a backbone under torchvision's names out.

``reading.py`` opens files without running code from them (``onnx_graph.py`` those of ONNX; ``foreign.py`` says
what others are), ``table.py`` lists the known families, ``places.py`` finds ResNets under any prefix,
``recognize.py`` tells the family, ``layouts.py`` turns its names into torchvision's, and ``locate.py`` puts these
together. Whether the tensors are whole is asked in ``backbone_tensors.py``. docs/CONVERTING.md shows how to add a
family.
"""

from moco_det.weights.sources.families import Family, Record
from moco_det.weights.sources.locate import (
    Source,
    agreed_arch,
    agreed_preprocessing,
    for_channels,
    locate_backbone,
    preprocessing_notes,
)
from moco_det.weights.sources.reading import read_checkpoint, weight_file
from moco_det.weights.sources.table import FAMILIES

__all__ = [
    "FAMILIES",
    "Family",
    "Record",
    "Source",
    "agreed_arch",
    "agreed_preprocessing",
    "for_channels",
    "locate_backbone",
    "preprocessing_notes",
    "read_checkpoint",
    "weight_file",
]
