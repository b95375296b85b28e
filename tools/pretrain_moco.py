#!/usr/bin/env python
"""Pre-train a ResNet with MoCo on unlabeled images.

tools/pretrain_moco.py --config-file configs/Pretrain/moco_v2_R_50_200ep.yaml --images DIR --num-gpus 8
"""

from moco_det_cli.command import run

if __name__ == "__main__":
    run("pretrain")
