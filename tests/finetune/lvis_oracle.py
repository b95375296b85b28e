"""LVIS's AP by plain loops (Gupta et al. 2019, section 3 and appendix): slow, short, and its own implementation.

Federated: of an image, only the categories that were looked for count: those with an instance in it and those in
``neg_category_ids``. Where the annotation of a category is not exhaustive, what matches nothing is no mistake.
"""

import numpy as np

THRESHOLDS = [0.5 + 0.05 * step for step in range(10)]
AREAS = {"": (0, 1e10), "s": (0, 32**2), "m": (32**2, 96**2), "l": (96**2, 1e10)}


def box_iou(a, b):
    """The intersection over union of two boxes x, y, width, height."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def lvis_ap(truth, detections, max_detections=300):
    """Box AP of detections whose area is their box's.

    Args:
        truth: what an LVIS file holds.
        detections: image_id, category_id, bbox (x, y, width, height) and score of each.

    Returns:
        AP, AP50, AP75, APs, APm, APl, APr, APc, APf in percent; NaN where no category has an instance.
    """
    kept = []
    for image in truth["images"]:
        own = sorted((d for d in detections if d["image_id"] == image["id"]), key=lambda d: -d["score"])
        kept += own[:max_detections]
    tables = {
        area: {c["id"]: _average_precisions(truth, kept, c["id"], *span) for c in truth["categories"]}
        for area, span in AREAS.items()
    }
    everything = tables[""]
    groups = {
        f: {c["id"]: everything[c["id"]] for c in truth["categories"] if c["frequency"] == f} for f in "rcf"
    }
    return {
        "AP": _mean(everything),
        "AP50": _mean(everything, 0),
        "AP75": _mean(everything, 5),
        **{f"AP{area}": _mean(tables[area]) for area in "sml"},
        **{f"AP{f}": _mean(groups[f]) for f in "rcf"},
    }


def _mean(table, threshold=slice(None)):
    values = [np.mean(np.array(row)[threshold]) for row in table.values() if row is not None]
    return 100 * float(np.mean(values)) if values else float("nan")


def _average_precisions(truth, detections, category, low, high):
    """Average precisions of one category, at each threshold; None without an instance of that size."""
    table, instances = [], 0
    for threshold in THRESHOLDS:
        rows, instances = [], 0
        for image in truth["images"]:
            found, number = _match(truth, detections, image, category, threshold, low, high)
            rows += found
            instances += number
        table.append(_area_under(rows, instances) if instances else None)
    return table if instances else None


def _match(truth, detections, image, category, threshold, low, high):
    """The detections of an image that count, as (score, is it right), and the number of instances."""
    here = [a for a in truth["annotations"] if a["image_id"] == image["id"] and a["category_id"] == category]
    if not here and category not in image["neg_category_ids"]:
        return [], 0  # nobody looked for it
    own = [d for d in detections if d["image_id"] == image["id"] and d["category_id"] == category]
    taken, rows = set(), []
    for detection in sorted(own, key=lambda d: -d["score"]):
        match = _best(detection, here, taken, threshold, low, high)
        if match is not None:
            taken.add(match)
            if low <= here[match]["area"] <= high:
                rows.append((detection["score"], True))
        elif (
            category not in image["not_exhaustive_category_ids"]
            and low <= detection["bbox"][2] * detection["bbox"][3] <= high
        ):
            rows.append((detection["score"], False))
    return rows, sum(low <= a["area"] <= high for a in here)


def _best(detection, here, taken, threshold, low, high):
    """The free instance with the largest overlap; one of another size only where none of this size fits."""
    for of_size in (True, False):
        fitting = [
            (box_iou(detection["bbox"], a["bbox"]), index)
            for index, a in enumerate(here)
            if index not in taken and (low <= a["area"] <= high) == of_size
        ]
        fitting = [pair for pair in fitting if pair[0] >= threshold - 1e-12]
        if fitting:
            return max(fitting)[1]
    return None


def _area_under(rows, instances):
    """Mean over the recalls 0, 0.01, …, 1 of the best precision at that recall or a higher one."""
    rows = sorted(rows, key=lambda row: -row[0])
    right = np.cumsum([correct for _, correct in rows])
    points = [(r / instances, r / (n + 1)) for n, r in enumerate(right)]
    # As LVIS's own code computes the recalls: 7 of 25 instances do not reach its 0.28 (0.28000000000000003).
    return np.mean([max((p for r, p in points if r >= k), default=0.0) for k in np.linspace(0, 1, 101)])
