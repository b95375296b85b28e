#!/usr/bin/env python
"""Make a packed copy of images: small JPEGs in tar shards, which --images takes like a folder. See --help."""

from moco_det.data.pack import main

if __name__ == "__main__":
    main()
