"""The classes of the procedural toy world, in the order of their contiguous ids."""

# Each is a silhouette: colour, texture, size, rotation and lighting are drawn for every object alike, so that
# only the shape tells the class.
TOY_CLASSES: tuple[str, ...] = ("disc", "ring", "square", "triangle", "star", "cross", "crescent", "heart")
