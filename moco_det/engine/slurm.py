"""``tools/launch_slurm.py``: a run as a SLURM job that is queued again when it is interrupted.

Writes a job script and hands it to ``sbatch``. SLURM signals the run before its time is over or it is preempted;
the run saves a checkpoint and exits with STOPPED, and the script queues the job again. The run itself starts its
processes, from one task a machine; no further package is needed.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence

from moco_det.utils.errors import LOST, STOPPED, user_errors
from moco_det.utils.files import atomic_write
from moco_det_cli.parsers.studies import slurm_parser

# The options that the job fills in.
OURS = ("--resume", "--num-machines", "--machine-rank", "--dist-url", "--num-gpus")
SCRIPT = """\
#!/bin/bash
{directives}

# A run that was stopped ({stopped}) or lost a process ({lost}) is queued again and resumes from its checkpoint.
cd {folder} || exit 1
address=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))
srun bash -c 'python=$1 tool=$2; shift 2; exec "$python" "$tool" --machine-rank "$SLURM_NODEID" "$@"' task \\
    {python} {tool} --num-machines "$SLURM_NNODES" --dist-url "tcp://$address:$port" --num-gpus {gpus} --resume \\
    {arguments}
code=$?
if [ $code = {stopped} ] || [ $code = {lost} ]; then
    [ "${{SLURM_RESTART_COUNT:-0}}" -lt {requeues} ] && scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
"""


def job_script(args: argparse.Namespace, command: Sequence[str]) -> str:
    """The text of the job's script.

    Args:
        args: of :func:`slurm_parser`.
        command: a tool of this package and its arguments.

    Raises:
        ValueError: it is no Python file, or holds an option that the job fills in.
    """
    if not command or not command[0].endswith(".py") or not os.path.isfile(command[0]):
        found = repr(command[0]) if command else "nothing"
        raise ValueError(
            f"the command begins with {found}; expected a tool, as in "
            "tools/launch_slurm.py --nodes 2 -- tools/pretrain_moco.py --config-file …"
        )
    given = [word for word in command if word.partition("=")[0] in OURS]
    if given:
        raise ValueError(f"the job itself gives {', '.join(given)}; leave it out of the command")
    directives = {
        "job-name": args.name,
        "nodes": args.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": args.cpus,
        "time": args.time,
        "output": args.log,
        "open-mode": "append",
        "signal": f"USR1@{args.warning}",
        **({"gpus-per-node": args.gpus} if args.gpus else {}),
        **({"partition": args.partition} if args.partition else {}),
    }
    lines = [f"#SBATCH --{name}={value}" for name, value in directives.items()]
    lines += ["#SBATCH --requeue", *(f"#SBATCH {option}" for option in args.sbatch)]
    for line in lines:
        if any(character in line for character in "\n\r"):
            raise ValueError(f"{line!r} has more than one line")
    return SCRIPT.format(
        directives="\n".join(lines),
        folder=shlex.quote(os.getcwd()),
        python=shlex.quote(sys.executable),
        tool=shlex.quote(command[0]),
        arguments=shlex.join(command[1:]),
        gpus=args.gpus,
        stopped=STOPPED,
        lost=LOST,
        requeues=args.requeues,
    )


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    """``tools/launch_slurm.py``."""
    args = slurm_parser().parse_args(argv)
    with atomic_write(args.script) as temporary:
        temporary.write_text(job_script(args, args.options))
    os.chmod(args.script, 0o755)
    print(f"Wrote {args.script}")
    if args.dry_run:
        return
    try:
        subprocess.run(["sbatch", args.script], check=True)
    except FileNotFoundError as error:
        raise ValueError("there is no sbatch here; run this on the cluster, or with --dry-run") from error
    except subprocess.CalledProcessError as error:
        raise ValueError(f"sbatch refused {args.script} (exit code {error.returncode})") from error
