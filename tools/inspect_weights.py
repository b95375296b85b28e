#!/usr/bin/env python
"""Say what a weight file is: family, network, tensors, preprocessing, provenance."""

from moco_det.convert.inspect_weights import main

if __name__ == "__main__":
    main()
