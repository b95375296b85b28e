"""The classes of the procedural toy world, in the order of their contiguous ids."""

# Each is a silhouette that mostly wears a texture of its own; colours, size, rotation and lighting are drawn for
# every object alike and tell nothing.
TOY_CLASSES: tuple[str, ...] = ("disc", "ring", "square", "triangle", "star", "cross", "crescent", "heart")

# The points of an object in the toy world's keypoint layout: the middle one of the pixels furthest to a side, and
# the pixel nearest to the centre of mass. Sides are the image's, so a mirror swaps left and right.
TOY_KEYPOINTS: tuple[str, ...] = ("top", "bottom", "left", "right", "centre")
TOY_KEYPOINT_FLIPS: tuple[tuple[str, str], ...] = (("left", "right"),)
