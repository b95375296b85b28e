"""detectron2's evaluator of Cityscapes' instances, without the file that the official script drops."""

import os
import tempfile
from collections.abc import Mapping

from detectron2.data import Metadata, MetadataCatalog
from detectron2.evaluation import CityscapesInstanceEvaluator


class TidyCityscapesInstanceEvaluator(CityscapesInstanceEvaluator):
    """Lets the script, which writes ``matches.json`` into the current folder, work in a temporary one."""

    def __init__(self, dataset_name: str):
        super().__init__(dataset_name)
        known = MetadataCatalog.get(dataset_name).as_dict()
        self._metadata = Metadata(**known | {"gt_dir": os.path.abspath(known["gt_dir"])})

    def evaluate(self) -> Mapping[str, Mapping[str, float]] | None:
        current = os.getcwd()
        with tempfile.TemporaryDirectory(prefix="cityscapes_matches_") as folder:
            os.chdir(folder)
            try:
                return super().evaluate()
            finally:
                os.chdir(current)
