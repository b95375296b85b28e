"""GPS AP by loops, from the protocol's description and one number after another: the tests' second version."""

import math


def gps(annotation, detection, tables, mean_distances, groups):
    """Similarity of an annotated person and a detection."""
    gx, gy, gw, gh = annotation["bbox"]
    dx, dy, dw, dh = detection.box
    values, any_inside = [], False
    for x, y, i, u, v in zip(*(annotation[f"dp_{name}"] for name in "xyIUV"), strict=True):
        column, row = math.trunc(x * gw / 255 + gx - dx), math.trunc(y * gh / 255 + gy - dy)
        inside = 0 <= column < int(dw) and 0 <= row < int(dh)
        any_inside |= inside
        true = nearest(int(i), u, v, tables)
        found = None
        if inside:
            label, new_u, new_v = (int(value) for value in detection.iuv[:, row, column])
            found = nearest(label, new_u / 255, new_v / 255, tables) if label else None
        if found is None:
            values.append(0.0)
            continue
        a, b = int(tables.vertex[true]), int(tables.vertex[found])
        apart = 0.0
        if a != b:
            position = 0  # walk through the lower triangle, row by row
            for low_row in range(max(a, b)):
                position += low_row
            apart = float(tables.distances[position + min(a, b)])
        values.append(math.exp(-(apart**2) / (2 * mean_distances[groups[int(i)]] ** 2)))
    return sum(values) / len(values) if values and any_inside else 0.0


def nearest(label, u, v, tables):
    best, where = math.inf, None
    for index in range(len(tables.label)):
        if tables.label[index] == label:
            squared = (tables.u[index] - u) ** 2 + (tables.v[index] - v) ** 2
            if squared < best:
                best, where = squared, index
    return where


def mean_distance(tables, group, groups, parts):
    """Over all pairs of different vertices on one part of a group."""
    total, pairs = 0.0, 0
    for part in {int(parts[c]) for c in range(1, 25) if groups[c] == group}:
        own = sorted({int(w) for w, c in zip(tables.vertex, tables.label, strict=True) if parts[c] == part})
        for i in own:
            for j in own:
                if j < i:
                    total += float(tables.distances[i * (i - 1) // 2 + j])
                    pairs += 1
    return total / pairs


def average_precision(images, threshold, low, high):
    """AP at one threshold for people and detections with areas from low to high; percent.

    Each image is a dict: gps and overlap as nested lists, scores (falling), areas, person_areas, annotated, crowd.
    """
    entries, people = [], 0
    for image in images:
        last = outcome(image, 0.95, low, high)
        of_image = outcome(image, threshold, low, high)
        count = len(image["person_areas"])
        need = [needed(image, g, low, high) for g in range(count)]
        people += sum(need)
        gone = {g for g in last if g is not None}
        order = sorted(range(count), key=lambda g: not need[g])
        forgiven = {}
        for d in range(len(image["scores"])):
            if last[d] is None:
                best, whom = 0.8, None
                for g in order:
                    if (g not in gone or image["crowd"][g]) and image["overlap"][d][g] >= best:
                        best, whom = image["overlap"][d][g], g
                if whom is not None:
                    forgiven[d] = not need[whom]
                    if not need[whom]:
                        gone.add(whom)
        for d, score in enumerate(image["scores"]):
            found = of_image[d] is not None
            out = (not need[of_image[d]]) if found else not any(need)
            out = forgiven.get(d, out)
            if not found and not low <= image["areas"][d] <= high:
                out = True
            if not out:
                entries.append((score, found))
    entries.sort(key=lambda entry: -entry[0])
    precisions = []
    for step in range(101):
        best, right = 0.0, 0
        for number, (_, found) in enumerate(entries, start=1):
            right += found
            if right / people >= step / 100 - 1e-12:
                best = max(best, right / number)
        precisions.append(best)
    return 100 * sum(precisions) / 101


def needed(image, g, low, high):
    return bool(image["annotated"][g]) and low <= image["person_areas"][g] <= high


def outcome(image, threshold, low, high):
    """Whom each detection finds, or None."""
    count, taken, found = len(image["person_areas"]), set(), []
    for row in image["gps"]:
        whom = None
        for wanted in (True, False):
            for g in range(count):
                free = g not in taken or image["crowd"][g]
                fits = free and needed(image, g, low, high) == wanted and row[g] >= threshold and row[g] > 0
                if fits and (whom is None or row[g] >= row[whom]):
                    whom = g
            if whom is not None:
                break
        found.append(whom)
        if whom is not None:
            taken.add(whom)
    return found
