"""`slurm`: the script of a Slurm job that is warned of its end, writes a checkpoint, and goes on after it was queued again."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import time
from pathlib import Path

from engine.cli.output import Stream
from engine.errors import EpochalError

LOOK_SECONDS = 0.2
_TIME = r"\d+|\d+:\d+(:\d+)?|\d+-\d+(:\d+){0,2}"


def slurm(arguments: argparse.Namespace, out: Stream, err: Stream) -> int:
    """Print the script; with --stop, in the job itself, stop its run."""
    if arguments.stop:
        return stop(arguments)
    from engine.cli.recipes import read_recipe

    recipe = read_recipe(arguments)
    if not re.fullmatch(_TIME, arguments.time):
        raise EpochalError(f"--time is {arguments.time!r} and must be as Slurm writes it: 90 (minutes), 4:00:00, 2-12:00:00")
    out.write(script(arguments, recipe.name, arguments.gpus or recipe.training.processes))
    out.flush()
    return 0


def script(arguments: argparse.Namespace, name: str, processes: int) -> str:
    """The script that trains with so many processes on each node."""
    options = {
        "job-name": name,
        "nodes": arguments.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": arguments.gpus,
        "cpus-per-task": arguments.cpus,
        "time": arguments.time,
        "partition": arguments.partition,
        "account": arguments.account,
        "output": f"{name}-%j.log",
        "open-mode": "append",
        "signal": f"B:USR1@{arguments.warning}",
    }
    lines = [f"#SBATCH --{key}={value}" for key, value in options.items() if value is not None]
    runs = f"export EPOCHAL_RUNS={shlex.quote(str(Path(arguments.runs).absolute()))}\n" if arguments.runs else ""
    return _SCRIPT.format(
        options="\n".join([*lines, "#SBATCH --requeue"]),
        prog=arguments.prog,
        runs=runs,
        python=shlex.quote(sys.executable),
        warning=arguments.warning,
        launcher=_launcher(arguments, processes),
        training=shlex.join(["train", *_of_train(arguments)]),
    )


def stop(arguments: argparse.Namespace) -> int:
    """Stop the run of this Slurm job with a checkpoint. Exit status: 0 there is something to go on with, 1 it has finished."""
    from engine.distributed.launched import runs_of_job
    from engine.run import Status, runs_root
    from engine.run.status import ALIVE

    if "SLURM_JOB_ID" not in os.environ:
        raise EpochalError("--stop is for the script of a Slurm job: there is no SLURM_JOB_ID here")
    runs = runs_of_job(runs_root(arguments.runs))
    for run in runs:
        if Status.read(run.status.path)["state"] in ALIVE:
            run.tell("stop", reason="Slurm's warning: the job's time is nearly over")
    while any(Status.read(run.status.path)["state"] in ALIVE for run in runs):
        time.sleep(LOOK_SECONDS)
    states = [Status.read(run.status.path)["state"] for run in runs]
    return 0 if not states or any(state in ("stopped", "died") for state in states) else 1


def _launcher(arguments: argparse.Namespace, processes: int) -> str:
    if arguments.nodes == 1 and processes == 1:
        return "-m engine"
    where = "--standalone"
    if arguments.nodes > 1:
        where = (
            '--nnodes="$SLURM_NNODES" --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}" \\\n'
            '    --rdzv-endpoint="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
            ':$((20000 + SLURM_JOB_ID % 20000))"'
        )
    return (
        f"-m torch.distributed.run {where} \\\n"
        f"    --nproc-per-node={processes} --max-restarts={arguments.restarts} --signals-to-handle=SIGTERM,SIGINT \\\n"
        "    -m engine"
    )


def _of_train(arguments: argparse.Namespace) -> list[str]:
    """What of the command line is for `train`."""
    options = [
        f"--{key}={value}" for key in ("model", "data", "epochs", "device", "name") if (value := getattr(arguments, key))
    ]
    options += ["--tensorboard"] * arguments.tensorboard
    recipe = [] if arguments.recipe is None else [arguments.recipe]
    return [*recipe, *options, *(f"--set={setting}" for setting in arguments.settings)]


_SCRIPT = """#!/bin/bash
{options}
# Written by {prog} slurm. {warning} seconds before the job's time is over Slurm warns this script, and nobody else (B:).
# The run then stops after its step with a checkpoint, and the job goes back into the queue. Begun once more, by this script
# or by Slurm itself (a node that failed, a job that had to make room), the same command goes on with the same run.
{runs}python={python}
again=
warned() {{
    if "$python" -m engine slurm --stop; then again=yes; fi
}}
trap warned USR1

srun --ntasks-per-node=1 --kill-on-bad-exit=1 --cpus-per-task="${{SLURM_CPUS_PER_TASK:-1}}" "$python" {launcher} \\
    {training} &
step=$!
warning=$((128 + $(kill -l USR1)))
status=$warning
while [ "$status" -eq "$warning" ]; do  # the signal ends the waiting, not the step
    wait "$step"
    status=$?
done

job=$SLURM_JOB_ID
if [ -n "$SLURM_ARRAY_JOB_ID" ]; then job=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID; fi  # the task, not its whole array
if [ -n "$again" ]; then scontrol requeue "$job"; fi
exit "$status"
"""
