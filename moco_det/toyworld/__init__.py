"""The embedded data: scenes rendered from a seed and written in the layouts of real data sets.

Reading order: ``art`` (what a scene is made of; ``procedural`` and ``cutouts`` are the two kinds), ``scenes``
(one scene: its pixels and the truth about its objects), ``layouts`` (one small writer per layout on disk),
``world`` (which scenes a toy world holds) and ``make`` (the way to disk, and the command line). A new kind of
label is read off a ``Scene`` by a new writer; the renderer does not change.
"""
