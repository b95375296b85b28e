#!/usr/bin/env python
"""Fine-tune a detector: --config-file RECIPE --init INIT --num-gpus N MODEL.WEIGHTS backbone.pkl [KEY VALUE …]."""

from moco_det.finetune.command import main

if __name__ == "__main__":
    main()
