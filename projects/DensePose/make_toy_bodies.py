#!/usr/bin/env python
"""Write the toy bodies: make_toy_bodies.py $DETECTRON2_DATASETS/toy_bodies [--train N] [--val N]."""

from moco_densepose.toy_bodies import main

if __name__ == "__main__":
    main()
