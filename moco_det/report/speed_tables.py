"""Tables of what tools/benchmark_speed.py measured, from the file that it wrote."""

from collections.abc import Mapping

from moco_det.report.document import Table, markdown_table

HEADER = ("what", "reference", "unit", "reference's", "ours", "ratio", "n", "target", "met")


def speed_table(record: Mapping) -> Table:
    """Each part next to its reference: mean ± standard deviation over the rounds."""
    rows = tuple(
        (
            *(m["what"] + (f" ({m['note']})" if m["note"] else ""), m["reference"], m["unit"]),
            *(_spread(m[name], m["rounds"]) for name in ("theirs", "ours", "ratio")),
            *(str(m["rounds"]), _target(m["target"]), {True: "yes", False: "no", None: ""}[m["met"]]),
        )
        for m in record["measurements"]
    )
    return Table(HEADER, rows)


def growth_table(record: Mapping) -> Table:
    """What a step costs as one of its sizes grows."""
    rows = tuple(
        (
            *(cost["what"], f"{cost['grows']} {cost['value']:,}", _spread(cost["milliseconds"], cost["rounds"])),
            "not known" if cost["memory_mib"] is None else f"{cost['memory_mib']:,.0f}",
        )
        for cost in record["growth"]
    )
    return Table(("what", "grows", "ms", "peak, MiB"), rows)


def kept_speed(record: Mapping) -> str:
    """Markdown: machine and command, and the tables."""
    machine = record["machine"]
    where = ", ".join(machine["gpus"]) or f"{machine['threads']} threads of {machine['cpu']}"
    parts = [f"{where}; torch {machine['torch']}, commit {record['commit']}, {record['finished'][:10]}:"]
    parts.append(f"```bash\n{record['command']}\n```")
    parts += [markdown_table(make(record)) for make, key in TABLES if record[key]]
    return "\n\n".join(parts)


TABLES = ((speed_table, "measurements"), (growth_table, "growth"))


def _spread(values: tuple[float, float], rounds: int) -> str:
    mean, std = values
    return f"{_number(mean)} ± {_number(std)}" if rounds > 1 else _number(mean)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _target(target) -> str:
    return "" if target is None else f"{'≥' if target[0] == '>=' else '≤'} {target[1]:.3g}"
