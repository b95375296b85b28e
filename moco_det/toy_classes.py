"""The classes of the procedural toy world, in the order of their contiguous ids."""

# Each is a silhouette that mostly wears a texture of its own; colours, size, rotation and lighting are drawn for
# every object alike and tell nothing.
TOY_CLASSES: tuple[str, ...] = ("disc", "ring", "square", "triangle", "star", "cross", "crescent", "heart")
