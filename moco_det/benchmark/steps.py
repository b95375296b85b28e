"""Command lines of ``tools/`` as steps, one after the other or side by side.

Each is printed as a user would type it, run in a process of its own with a log, and skipped when its result is
there.
"""

import contextlib
import datetime
import itertools
import os
import queue
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from moco_det.utils.children import call, end_children, resumed_by
from moco_det.utils.machine import num_cores
from moco_det.utils.progress import BAR_POSITION

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        result: the file that says it is done.
        alongside: it may run at the same time as its neighbors that say so too.
        environment: variables and values that it is started with, beside those that are there.
        check: called when it is done, now or before; raises ValueError where something does not hold that must.
    """

    title: str
    command: tuple[str, ...]
    result: Path
    alongside: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    check: Callable[[], None] = lambda: None

    @property
    def shell(self) -> str:
        """The command for a shell in the working folder; paths below or beside it are relative."""
        variables = [f"{name}={shlex.quote(_relative(value))}" for name, value in self.environment]
        return " ".join([*variables, shlex.join(map(_relative, self.command))])


def _relative(word: str) -> str:
    return os.path.relpath(word) if word.startswith(str(REPOSITORY)) else word


def schedule_options(iterations: int, evaluations: int = 4) -> tuple[str, ...]:
    """KEY VALUE pairs of fine-tuning for a schedule of this length, its steps at 3/4 and 11/12, and the number of
    evaluations."""
    steps = (iterations * 3 // 4, iterations * 11 // 12)
    return (
        *("SOLVER.MAX_ITER", str(iterations), "SOLVER.STEPS", str(steps)),
        *("TEST.EVAL_PERIOD", str(iterations // evaluations)),
    )


@dataclass(frozen=True)
class Slot:
    """A place in which a step runs: a line of the terminal for its bar, threads, and maybe GPUs of its own."""

    bar: int = 0
    threads: int | None = None  # for the arithmetic on the CPU; None: what torch chooses
    gpus: str | None = None  # as in CUDA_VISIBLE_DEVICES

    @property
    def environment(self) -> dict[str, str]:
        found = {BAR_POSITION: str(self.bar)}
        if self.threads is not None:
            found["OMP_NUM_THREADS"] = str(self.threads)
        if self.gpus is not None:
            found["CUDA_VISIBLE_DEVICES"] = self.gpus
        return found


@resumed_by("the same command resumes; what is finished is skipped")
def run_steps(
    steps: Sequence[Step],
    logs: Path,
    jobs: int = 1,
    gpus: Sequence[str] = (),
    total: int = 0,
    keep_going: bool = False,
) -> None:
    """Run the steps in order; those that are ``alongside`` one another ``jobs`` at a time.

    Args:
        logs: folder of a log for each step.
        gpus: what the steps that run alongside see, one entry for each at a time, such as ``("0,1", "2,3")``; then
            ``jobs`` does not count.
        total: steps to be counted to, where more follow these.
        keep_going: of steps alongside, continue with the others after one failed.

    Raises:
        ValueError: a step failed; with ``keep_going``, after the others ran.
    """
    total = total or len(steps)
    names = {step: f"[{number}/{total}]" for number, step in enumerate(steps, 1)}
    for alongside, group in itertools.groupby(steps, key=lambda step: step.alongside):
        if alongside and (jobs > 1 or gpus or keep_going):
            _run_alongside([(step,) for step in group], names, logs, _slots(jobs, gpus), keep_going)
            continue
        for step in group:
            run_step(step, names[step], logs)


@resumed_by("the same command resumes; what is finished is skipped")
def run_chains(chains: Sequence[Sequence[Step]], logs: Path, jobs: int = 1, gpus: Sequence[str] = ()) -> None:
    """Run chains side by side, the steps of each one after the other; after a failure the other chains continue.

    Args:
        logs, jobs, gpus: as of :func:`run_steps`.

    Raises:
        ValueError: chains failed, after the others ran.
    """
    steps = list(itertools.chain.from_iterable(chains))
    names = {step: f"[{number}/{len(steps)}]" for number, step in enumerate(steps, 1)}
    _run_alongside(chains, names, logs, _slots(jobs, gpus), keep_going=True)


def settle_places(num_gpus: int | None, jobs: int | None) -> tuple[int, tuple[str, ...], int]:
    """GPUs of a run (default: one where there is one), which these are for each run at a time, and how many are.

    Raises:
        ValueError: more GPUs a run than there are.
    """
    there = torch.cuda.device_count()
    num_gpus = min(1, there) if num_gpus is None else num_gpus
    if not num_gpus:
        return 0, (), jobs or min(4, num_cores())
    if num_gpus > there:
        raise ValueError(f"--num-gpus is {num_gpus} for each run, but this machine has {there} CUDA GPUs")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    names = visible if len(visible) == there else list(map(str, range(there)))
    groups = [names[i : i + num_gpus] for i in range(0, there - num_gpus + 1, num_gpus)]
    gpus = tuple(",".join(group) for group in groups[:jobs])
    return num_gpus, gpus, len(gpus)


def _slots(jobs: int, gpus: Sequence[str]) -> list[Slot]:
    if gpus:
        return [Slot(bar, gpus=seen) for bar, seen in enumerate(gpus)]
    threads = max(1, num_cores() // jobs) if jobs > 1 else None
    return [Slot(bar, threads) for bar in range(jobs)]


def _run_alongside(
    chains: Sequence[Sequence[Step]], names: dict, logs: Path, slots: list[Slot], keep_going: bool
) -> None:
    free = queue.SimpleQueue()
    for slot in slots:
        free.put(slot)

    def run(chain: Sequence[Step]) -> None:
        slot = free.get()
        try:
            for step in chain:
                run_step(step, names[step], logs, slot)
        finally:
            free.put(slot)

    failures = []
    with ThreadPoolExecutor(len(slots)) as pool, _ended_by_interrupt(pool):
        for future in as_completed([pool.submit(run, chain) for chain in chains]):
            try:
                future.result()
            except ValueError as error:
                if not keep_going:
                    pool.shutdown(cancel_futures=True)  # what runs may finish, nothing new starts
                    raise
                print(f"error: {error}", file=sys.stderr, flush=True)
                failures.append(error)
    if failures:
        raise ValueError(
            f"{len(failures)} of {len(chains)} runs failed, see above; start again to resume them"
        )


@contextlib.contextmanager
def _ended_by_interrupt(pool: ThreadPoolExecutor) -> Iterator[None]:
    """Ctrl-C reaches the main thread alone; the others wait for their steps, which end here."""
    try:
        yield
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        end_children()
        raise


def run_step(step: Step, name: str, logs: Path, slot: Slot = Slot()) -> None:  # noqa: B008
    """Run one step; its output goes to a log, its progress bar to the terminal.

    Args:
        name: such as "[3/7]".

    Raises:
        ValueError: the command failed; the end of its log is in the message.
    """
    if step.result.exists():
        print(f"{name} {step.title}: done before", flush=True)
        step.check()
        return
    print(f"{name} {step.title}\n      {step.shell}", flush=True)
    log = logs / f"{name.strip('[]').replace('/', '_of_')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", **dict(step.environment), **slot.environment}
    start = time.perf_counter()
    with open(log, "w") as file:
        errors = None if sys.stderr.isatty() else file  # bars show on a terminal only
        code = call(
            [sys.executable, *step.command], stdout=file, stderr=errors, env=environment, cwd=REPOSITORY
        )
    if code:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ValueError(f"{step.title} failed with exit code {code}; the end of {log}:\n{end}")
    if not step.result.exists():
        raise ValueError(f"{step.title} ended without writing {step.result}; see {log}")
    step.check()
    took = datetime.timedelta(seconds=round(time.perf_counter() - start))
    print(f"{name} took {took}", flush=True)
