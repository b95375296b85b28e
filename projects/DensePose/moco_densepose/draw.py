"""Draw I, U and V on a picture: of a data set's annotations, or of what a trained model sees.

draw.py --dataset moco_densepose_toy_val --index 0 --output truth.png
draw.py --config-file RECIPE --init INIT --image FILE --output seen.png MODEL.WEIGHTS model_final.pth
"""

import argparse

import numpy as np
from detectron2.data import DatasetCatalog, detection_utils
from detectron2.engine import DefaultPredictor
from PIL import Image

from moco_densepose import add_densepose_config
from moco_densepose.drawing import draw_detections, draw_points
from moco_densepose.evaluator import detections_of
from moco_det.config import get_cfg, merge_config
from moco_det.model_zoo import get_config_file, get_init_file
from moco_det.utils.errors import user_errors

SCALE = 3  # pictures of toys are small


def predict(args: argparse.Namespace) -> np.ndarray:
    cfg = get_cfg()
    add_densepose_config(cfg)
    overlays = (get_init_file(args.init),) if args.init else ()
    merge_config(cfg, get_config_file(args.config_file), ["MODEL.DEVICE", "cpu", *args.opts], overlays)
    image = detection_utils.read_image(args.image, format="RGB")
    instances = DefaultPredictor(cfg)(image[:, :, ::-1])[
        "instances"
    ]  # it takes BGR, whatever the model takes
    seen = detections_of(instances[instances.scores >= args.min_score], image_id=0)
    return draw_detections(image, seen)


def annotated(args: argparse.Namespace) -> np.ndarray:
    record = DatasetCatalog.get(args.dataset)[args.index]
    return draw_points(
        detection_utils.read_image(record["file_name"], format="RGB"), record["annotations"], args.radius
    )


@user_errors
def main(argv=None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", help="a registered data set, whose annotations are drawn")
    parser.add_argument("--index", type=int, default=0, help="number of its image, from 0")
    parser.add_argument("--radius", type=int, default=0, help="half the side of a point's square, in pixels")
    parser.add_argument("--config-file", help="the recipe of a model that looks at --image")
    parser.add_argument("--init", help="the init overlay that the model was trained with")
    parser.add_argument("--image", help="the picture that the model looks at")
    parser.add_argument("--min-score", type=float, default=0.5, help="of the people drawn, in [0, 1]")
    parser.add_argument("--output", required=True, help="a PNG: I, U and V side by side")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config, e.g. MODEL.WEIGHTS FILE")
    args = parser.parse_args(argv)
    if bool(args.dataset) == bool(args.config_file and args.image):
        raise ValueError("give either --dataset, or --config-file and --image")
    panels = Image.fromarray(annotated(args) if args.dataset else predict(args))
    panels.resize((panels.width * SCALE, panels.height * SCALE), Image.Resampling.NEAREST).save(args.output)
