#!/usr/bin/env python
"""Draw I, U and V on a picture: draw.py --help."""

from moco_densepose.draw import main

if __name__ == "__main__":
    main()
