"""Tables of what tools/benchmark_speed.py measured, from the file that it wrote."""

from collections.abc import Iterator, Mapping

from moco_det.report.document import Table, markdown_table

IMAGENET_BATCH = 256
RECIPES = (("200 epochs", 1_000_800), ("800 epochs", 4_003_200))  # steps on ImageNet-1k, 5,004 an epoch
HEADER = ("what", "reference", "unit", "reference's", "ours", "ratio", "n", "target", "met")


def speed_table(record: Mapping) -> Table:
    """Each part next to its reference: mean ± standard deviation over the rounds."""
    rows = tuple(
        (
            m["what"] + (f" ({m['note']})" if m["note"] else ""),
            m["reference"],
            m["unit"],
            *(_spread(m[name], m["rounds"]) for name in ("theirs", "ours", "ratio")),
            str(m["rounds"]),
            _target(m["target"]),
            {True: "yes", False: "no", None: ""}[m["met"]],
        )
        for m in record["measurements"]
    )
    return Table(HEADER, rows)


def growth_table(record: Mapping) -> Table:
    """What a step costs as one of its sizes grows."""
    rows = tuple(
        (
            cost["what"],
            f"{cost['grows']} {cost['value']:,}",
            _spread(cost["milliseconds"], cost["rounds"]),
            "not known" if cost["memory_mib"] is None else f"{cost['memory_mib']:,.0f}",
        )
        for cost in record["growth"]
    )
    return Table(("what", "grows", "ms", "peak, MiB"), rows)


def hours_table(record: Mapping) -> Table:
    """Hours of the paper's recipes by the measured rates of a step alone: no loading, no other processes."""
    rows = []
    for name, milliseconds in _steps(record):
        hours = [steps * IMAGENET_BATCH * milliseconds / 3.6e6 for _, steps in RECIPES]
        rows.append((name, *(cell for h in hours for cell in (_number(h), _number(h / 8)))))
    header = tuple(f"{name}, hours on {count}" for name, _ in RECIPES for count in ("1", "8 (divided)"))
    return Table(("step", *header), tuple(rows))


def _steps(record: Mapping) -> Iterator[tuple[str, float]]:
    """Names and milliseconds an image of the steps that were measured."""
    for m in record["measurements"]:
        if m["part"] == "step" and m["unit"] == "ms/image":
            if "published" in m["reference"]:
                yield m["reference"], m["theirs"][0]
            else:
                yield f"ours: {m['what']}", m["ours"][0]


def kept_speed(record: Mapping) -> str:
    """Markdown: machine and command, and the tables."""
    machine = record["machine"]
    where = ", ".join(machine["gpus"]) or f"{machine['threads']} threads of {machine['cpu']}"
    parts = [f"{where}; torch {machine['torch']}, commit {record['commit']}, {record['finished'][:10]}:"]
    parts.append(f"```bash\n{record['command']}\n```")
    parts += [markdown_table(table) for table in (make(record) for make in TABLES) if table.rows]
    return "\n\n".join(parts)


TABLES = (speed_table, growth_table, hours_table)


def _spread(values: tuple[float, float], rounds: int) -> str:
    mean, std = values
    return f"{_number(mean)} ± {_number(std)}" if rounds > 1 else _number(mean)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _target(target) -> str:
    return "" if target is None else f"{'≥' if target[0] == '>=' else '≤'} {target[1]:.3g}"
