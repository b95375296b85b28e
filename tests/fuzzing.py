"""Mutations of files and of labels, for the fuzz tests: the same for the same seed."""

import copy
import json
import random
import xml.etree.ElementTree as ET

STRANGE = (
    None,
    True,
    -1,
    0,
    1,
    10**30,
    0.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\x00",
    [],
    [1],
    {},
    {"a": 1},
)


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """One to three of: bits flipped, a piece taken out, zeroed, repeated or put elsewhere, the end cut off."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        size = max(len(data), 1)
        # Headers are where formats decide; half of the mutations fall there.
        start = rng.randrange(min(size, 64) if rng.random() < 0.5 else size)
        piece = data[start : start + rng.choice((1, 2, 4, 16, 64, size // 4))]
        kind = rng.randrange(6)
        if kind == 0:
            for place in range(start, min(start + rng.choice((1, 1, 4, 32)), len(data))):
                data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[start : start + len(piece)]
        elif kind == 2:
            data[start : start + len(piece)] = rng.choice((b"\x00", b"\xff")) * len(piece)
        elif kind == 3:
            data[start:start] = piece
        elif kind == 4:
            target = rng.randrange(size)
            data[target : target + len(piece)] = piece
        else:
            del data[start:]
    return bytes(data)


def mutated_json(content: object, rng: random.Random) -> str:
    """A value replaced by a strange one, removed, repeated, or exchanged with another one somewhere."""
    content = copy.deepcopy(content)
    for _ in range(rng.randint(1, 2)):
        holder, key = rng.choice(list(_places(content)))
        kind = rng.randrange(4)
        if kind == 0:
            holder[key] = rng.choice(STRANGE)
        elif kind == 1:
            del holder[key]
        elif kind == 2 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            other, other_key = rng.choice(list(_places(content)))
            holder[key] = copy.deepcopy(other[other_key])
    return json.dumps(content)


def _places(content: object):
    """(container, key) of every value below ``content``."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(items):
        yield content, key
        if isinstance(value, dict | list):
            yield from _places(value)


def mutated_xml(content: str, rng: random.Random) -> str:
    """An element with strange text, removed, repeated or renamed."""
    root = ET.fromstring(content)
    parents = [(parent, child) for parent in root.iter() for child in parent]
    for _ in range(rng.randint(1, 2)):
        parent, child = rng.choice(parents)
        kind = rng.randrange(4)
        if kind == 0:
            child.text = rng.choice(("", "x", "-5", "nan", "1e30", "0", "9" * 40, "1.5", None))
        elif kind == 1 and child in list(parent):
            parent.remove(child)
        elif kind == 2:
            parent.append(copy.deepcopy(child))
        else:
            child.tag = rng.choice(("object", "size", "strange", "bndbox"))
    return ET.tostring(root, encoding="unicode")
