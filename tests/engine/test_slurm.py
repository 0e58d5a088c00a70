"""The script of a Slurm job, beside a stand-in for Slurm that sends its signals in its order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.cli import main
from engine.events import RunStarted
from engine.run import Journal, Run, Status
from tests.engine.processes import PATIENCE, as_from_a_shell, held, until

pytestmark = pytest.mark.usefixtures("in_a_shell")
SRUN = """#!/bin/bash
while [ "${1#--}" != "$1" ]; do shift; done  # srun's own options
exec "$@"
"""
SCONTROL = """#!/bin/bash
if [ "$1" = show ]; then echo localhost; else echo "$*" >> asked; fi
"""


class Cluster:
    """Runs the job as Slurm would, each time it is its turn."""

    def __init__(self, where: Path, script: str) -> None:
        self.where, self.begun = where, 0
        (where / "job.sh").write_text(script)
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
            (where / name).write_text(text)
            (where / name).chmod(0o755)

    def start(self, **variables: str) -> subprocess.Popen[Any]:
        """Begin the job: for the first time, or once more."""
        known = {"SLURM_JOB_ID": "77", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "localhost", "OMP_NUM_THREADS": "1"}
        if self.begun:
            known["SLURM_RESTART_COUNT"] = str(self.begun)
        self.begun += 1
        environment = {**os.environ, **known, **variables, "PATH": f"{self.where}:{os.environ['PATH']}"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(["bash", "job.sh"], cwd=self.where, env=environment, preexec_fn=as_from_a_shell, **pipes)  # noqa: PLW1509

    @property
    def requeued(self) -> list[str]:
        asked = self.where / "asked"
        return asked.read_text().splitlines() if asked.exists() else []

    @property
    def run(self) -> Run:
        (path,) = (self.where / "runs").iterdir()
        return Run(path)

    def saved(self) -> bool:
        return bool(list(self.where.glob("runs/*/checkpoints/step-*")))


def script(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["slurm", *arguments], prog="epochal") == 0
    return capsys.readouterr().out


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EPOCHAL_RUNS", raising=False)
    (tmp_path / "net.py").write_text(held(20))  # what the job is told comes before the run's end, however quick that is
    return tmp_path


SMALL = ("--data", "iris", "--model", "net.py:Net", "--set", "checkpoint.min_seconds=0", "--epochs", "12")


def test_a_job_is_warned_requeued_and_goes_on(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """USR1 for the batch script alone, two minutes before the end; the next time there is enough of it."""
    cluster = Cluster(there, script(capsys, *SMALL))
    job = cluster.start()
    until(cluster.saved, "there is a checkpoint")
    job.send_signal(signal.SIGUSR1)
    until(
        lambda: b"\n" in b"".join(path.read_bytes() for path in cluster.run.path.glob("control.jsonl")), "it is asked to stop"
    )
    (there / "go").touch()
    out, _ = job.communicate(timeout=PATIENCE)
    assert cluster.requeued == ["requeue 77"], out
    assert Status.read(cluster.run.status.path)["state"] == "stopped"
    reached = cluster.run.checkpoints.read("last").step
    assert 20 <= reached < 48

    job = cluster.start()
    out, _ = job.communicate(timeout=PATIENCE)
    assert job.returncode == 0, out
    assert cluster.requeued == ["requeue 77"]  # a run that has finished is not queued once more
    starts = [event.step for event in Journal.read(cluster.run.journal.path)[0] if isinstance(event, RunStarted)]
    assert starts == [0, reached]
    assert Status.read(cluster.run.status.path)["state"] == "finished"


@pytest.mark.slow
def test_a_job_that_has_to_make_room_goes_on(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGCONT and SIGTERM for every process of the step, half a minute before SIGKILL; Slurm itself queues it once more."""
    cluster = Cluster(there, script(capsys, *SMALL, "--set", "training.processes=2"))
    job = cluster.start()
    until(cluster.saved, "there is a checkpoint")
    step = [child for child in psutil.Process(job.pid).children(recursive=True) if "engine" in child.cmdline()]
    assert len(step) == 3  # torchrun and the ranks
    for number in (signal.SIGCONT, signal.SIGTERM):
        for process in step:
            process.send_signal(number)
    (there / "go").touch()
    out, _ = job.communicate(timeout=PATIENCE)
    assert cluster.requeued == [] and job.returncode != 0
    until(lambda: Status.read(cluster.run.status.path)["state"] == "stopped", "it has stopped")

    job = cluster.start()
    out, _ = job.communicate(timeout=PATIENCE)
    assert job.returncode == 0, out
    assert Status.read(cluster.run.status.path)["state"] == "finished"
    assert sum(isinstance(event, RunStarted) for event in Journal.read(cluster.run.journal.path)[0]) == 2


def test_what_the_script_asks_for(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("my digits.toml").write_text("seed = 3\n")
    text = script(
        capsys, "my digits.toml", "--nodes", "2", "--gpus", "4", "--time", "1-0", "--set", "optimizer.lr=1e-2", "--tensorboard"
    )
    options = {line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH ")}
    assert {"nodes=2", "gpus-per-node=4", "time=1-0", "requeue", "signal=B:USR1@120", "open-mode=append"} <= options
    assert '--nnodes="$SLURM_NNODES"' in text and "--nproc-per-node=4" in text and f"python={sys.executable}" in text
    assert "train 'my digits.toml' --tensorboard --set=optimizer.lr=1e-2 &" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


def test_mistakes(there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert main(["slurm", "--time", "tomorrow"]) == 2
    assert "'tomorrow'" in capsys.readouterr().err
    assert main(["slurm", "--stop"]) == 2
