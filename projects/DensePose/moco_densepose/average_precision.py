"""Average precision over GPS thresholds: COCO's matching with dense pose's rules for people without annotations.

Letters: D detections and G people of an image, T thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
# The best so many detections of an image count.
MAX_DETECTIONS = 20
# A person's or a detection's area in square pixels.
AREAS = {"": (0, 1e10), "m": (32**2, 96**2), "l": (96**2, 1e10)}
# A detection that meets no annotated person is no mistake where its box covers somebody not annotated this well.
COVERED = 0.8


@dataclass(frozen=True)
class ImagePair:
    """Detections and people of one image.

    Attributes:
        gps: D x G, detections by falling score.
        overlap: D x G, IoU of the boxes.
        scores, areas: D.
        person_areas: G.
        annotated: G, bool: has dense pose.
        crowd: G, bool: may be matched more than once.
    """

    gps: np.ndarray
    overlap: np.ndarray
    scores: np.ndarray
    areas: np.ndarray
    person_areas: np.ndarray
    annotated: np.ndarray
    crowd: np.ndarray


def average_precisions(pairs: Sequence[ImagePair]) -> dict[str, float]:
    """AP, AP50, AP75, APm and APl in percent; NaN where no annotated person has the size."""
    metrics = {}
    for suffix, area in AREAS.items():
        precision = _precision(pairs, area)
        metrics[f"AP{suffix}"] = 100 * float(precision.mean())
        if not suffix:
            metrics["AP50"], metrics["AP75"] = (100 * float(precision[t].mean()) for t in (0, 5))
    return metrics


def _precision(pairs: Sequence[ImagePair], area: tuple[float, float]) -> np.ndarray:
    """Precision at each threshold and recall, T x 101; NaN where there is nobody to find."""
    matched, left_out, scores, people = [], [], [], 0
    for image in pairs:
        ignored = ~image.annotated | ~_within(image.person_areas, area)
        found = match(image, ignored)
        matched.append(found[0])
        # An unmatched detection of another size is no mistake.
        left_out.append(found[1] | (~found[0] & ~_within(image.areas, area)))
        scores.append(image.scores)
        people += int((~ignored).sum())
    if not people:
        return np.full((len(THRESHOLDS), len(RECALLS)), np.nan)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    matched, left_out = (np.concatenate(values, axis=1)[:, order] for values in (matched, left_out))
    right = np.cumsum(matched & ~left_out, axis=1)
    wrong = np.cumsum(~matched & ~left_out, axis=1)
    precision = np.zeros((len(THRESHOLDS), len(RECALLS)))
    for t in range(len(THRESHOLDS)):
        exact = right[t] / np.maximum(right[t] + wrong[t], np.spacing(1))
        falling = np.maximum.accumulate(exact[::-1])[::-1]  # the best precision at this recall or more
        place = np.searchsorted(right[t] / people, RECALLS, side="left")
        reached = place < len(falling)
        precision[t, reached] = falling[place[reached]]
    return precision


def _within(areas: np.ndarray, area: tuple[float, float]) -> np.ndarray:
    return (areas >= area[0]) & (areas <= area[1])


def match(image: ImagePair, ignored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which detections find a person, and which count neither as right nor as wrong; T x D each, bool.

    Args:
        ignored: G, bool: people who need not be found.
    """
    # People who count come first: a detection takes one who need not be found only if no other is left.
    order = np.argsort(ignored, kind="stable")
    gps, overlap = image.gps[:, order], image.overlap[:, order]
    ignored, crowd = ignored[order], image.crowd[order]
    shape = len(THRESHOLDS), len(image.scores)
    matched = np.zeros(shape, dtype=bool)
    # The protocol forgives every detection of an image in which nobody counts.
    left_out = np.full(shape, bool(ignored.all()))
    for t, threshold in enumerate(THRESHOLDS):
        taken = np.zeros(len(ignored), dtype=bool)
        for d in range(shape[1]):
            person = _best(gps[d], taken & ~crowd, ignored, min(threshold, 1 - 1e-10))
            if person is not None:
                matched[t, d], left_out[t, d], taken[person] = True, ignored[person], True
    _forgive(matched[-1], left_out, overlap, taken, ignored, crowd)
    return matched, left_out


def _best(gps: np.ndarray, gone: np.ndarray, ignored: np.ndarray, least: float) -> int | None:
    """The most similar person at ``least`` or above among those who count, else among the others."""
    for group in (~ignored, ignored):
        fitting = np.flatnonzero(group & ~gone & (gps >= least) & (gps > 0))
        if len(fitting):
            return int(
                fitting[len(fitting) - 1 - gps[fitting][::-1].argmax()]
            )  # the last of equals, as in COCO
    return None


def _forgive(
    matched: np.ndarray,
    left_out: np.ndarray,
    overlap: np.ndarray,
    taken: np.ndarray,
    ignored: np.ndarray,
    crowd: np.ndarray,
) -> None:
    """Apply the rule of COVERED to ``left_out``, T x D, in place.

    The protocol looks at the matches of the last threshold only, and applies what it finds to all.
    """
    for d in np.flatnonzero(~matched):
        free = np.flatnonzero(~(taken & ~crowd) & (overlap[d] >= COVERED))
        if len(free):
            person = free[len(free) - 1 - overlap[d][free][::-1].argmax()]
            left_out[:, d] = ignored[person]
            if ignored[person]:
                taken[person] = True
