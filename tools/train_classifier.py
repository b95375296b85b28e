#!/usr/bin/env python
"""Evaluate features by a linear classifier and kNN, or train a classification network.

tools/train_classifier.py --config-file configs/ImageNet-Classification/linear_R_50_100ep.yaml \
    --weights output/backbone.pkl --images DIR --num-gpus 8
"""

from moco_det_cli.command import run

if __name__ == "__main__":
    run("classify")
