"""The classes of the procedural toy world, in the order of their contiguous ids."""

# Each is a kind with sub-kinds of its own (moco_det/toyworld/kinds.py).
TOY_CLASSES: tuple[str, ...] = (
    "bird",
    "fish",
    "butterfly",
    "beetle",
    "flower",
    "tree",
    "mushroom",
    "snail",
    "car",
    "boat",
    "house",
    "cup",
)

# The points of an object in the toy world's keypoint layout: the middle one of the pixels furthest to a side, and
# the pixel nearest to the centre of mass. Sides are the image's, so a mirror swaps left and right.
TOY_KEYPOINTS: tuple[str, ...] = ("top", "bottom", "left", "right", "centre")
TOY_KEYPOINT_FLIPS: tuple[tuple[str, str], ...] = (("left", "right"),)
