"""The charts of a body of COCO dense pose: 24 fine parts, 14 coarse ones, and what a mirror does to them.

A label 0 is background throughout. These lists are the annotations' and the metric's; nothing here depends on the
shape of a body.
"""

import numpy as np

NUM_CHARTS = 24
# Side of the binary masks dp_masks, in cells over the box; and the unit of dp_x and dp_y, of which BOX_UNITS span
# the box.
MASK_SIZE = 256
BOX_UNITS = 255.0

# By label I, the label of the chart that a mirror makes of it: each but the torso's changes with its neighbor.
MIRRORED_CHART = np.array([0, 1, 2, *(chart + side for chart in range(3, 25, 2) for side in (1, 0))])
# By label I, the coarse part (label S, the order of dp_masks). Torso, head and limbs have two charts each:
# 1 and 2, 23 and 24, upper legs 7 and 9 (right), 8 and 10 (left), and so on in steps of two.
COARSE_NAMES = (
    *("background", "torso", "right hand", "left hand", "left foot", "right foot"),
    *("right upper leg", "left upper leg", "right lower leg", "left lower leg"),
    *("left upper arm", "right upper arm", "left lower arm", "right lower arm", "head"),
)
NUM_COARSE = len(COARSE_NAMES) - 1
COARSE_OF_CHART = np.array(
    [0, 1, 1, 2, 3, 4, 5, 6, 7, 6, 7, 8, 9, 8, 9, 10, 11, 10, 11, 12, 13, 12, 13, 14, 14]
)
MIRRORED_COARSE = np.array([0, 1, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 14])
# By label I, the group over which the metric takes its mean distance: torso, hands, feet, upper and lower legs,
# upper and lower arms, head. Left and right, front and back are one group.
GROUP_OF_CHART = np.array([0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 8, 8])
NUM_GROUPS = 8
