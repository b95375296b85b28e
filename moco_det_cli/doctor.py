"""``moco-det doctor``: what on this machine would stop a run or make it slow, each with the fix.

It writes nothing but a temporary file of 1 MiB where runs write, and needs nothing but Python: it works without
torch and detectron2, with installations that do not fit together, and on a full disk.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence

from moco_det_cli import machine_checks, package_checks
from moco_det_cli.findings import STOP, Finding

# For the imports: 3 to 8 s, more at first and on a busy machine; longer means that something hangs.
SECONDS = 120


def examine(seconds: float = SECONDS) -> list[Finding]:
    """All findings, in the order in which a user would fix them."""
    python = package_checks.python()
    if python.verdict == STOP:  # too old for what follows
        return [python]
    facts, ended = imported_facts(seconds)
    return [
        python,
        *package_checks.imported(facts, ended),
        *package_checks.requirements(),
        machine_checks.gpus(facts),
        *machine_checks.processor(facts),
        *machine_checks.disks(),
        machine_checks.shared_memory(),
        machine_checks.datasets(facts),
    ]


def imported_facts(seconds: float) -> tuple[dict[str, dict], str]:
    """What :mod:`moco_det_cli.probe` finds in a process of its own.

    Returns:
        facts of each step that ended; "torchvision was ended by signal 4" where the process did not reach its end,
        else "".
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; from moco_det_cli.probe import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        output, how = process.communicate(timeout=seconds)[0], ""
    except subprocess.TimeoutExpired:
        process.kill()
        output, how = process.communicate()[0], f"did not end in {seconds:.0f} s"
    if process.returncode and not how:
        signal = f"was ended by signal {-process.returncode}"
        how = signal if process.returncode < 0 else f"ended with exit code {process.returncode}"
    lines = [json.loads(line) for line in output.splitlines()]
    facts = {line["step"]: line["facts"] for line in lines if "step" in line}
    running = [line["begins"] for line in lines if "begins" in line and line["begins"] not in facts]
    return facts, f"importing {running[0] if running else 'Python itself'} {how}" if how else ""


def as_text(findings: Sequence[Finding]) -> str:
    """A line for each, and its fix below it."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.verdict:7}  {finding.name:{width}}  {finding.found}")
        if finding.fix:
            lines.append(f"{'':9}{'':{width}}  fix: {finding.fix}")
    stops = sum(finding.verdict == STOP for finding in findings)
    count = {0: "nothing here", 1: "1 finding"}.get(stops, f"{stops} findings")
    lines += ["", f"{count} would stop a run"]
    return "\n".join(lines)


def make_parser(prog: str | None = None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Say what on this machine would stop a run or make it slow, each with the fix.",
        epilog="exit code: 0 nothing would stop a run, 1 something would, 2 the command is wrong",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON, for scripts")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    args = make_parser().parse_args(argv)
    findings = examine()
    stops = any(finding.verdict == STOP for finding in findings)
    if args.json:
        rows = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"stops": stops, "findings": rows}, indent=2))
    else:
        print(as_text(findings))
    sys.exit(1 if stops else 0)
