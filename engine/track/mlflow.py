"""A run in MLflow: its parameters and its values, on a server or in a folder."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.events import Event, RunEnded, RunStarted
from engine.run import files, strict_json

if TYPE_CHECKING:
    from engine.run import Run

FILE = "mlflow.json"  # which run it is there, for a resume
EXPERIMENT = "epochal"
AT_ONCE, PARAMETERS = 1000, 100  # that one request takes
LONGEST = 500  # characters of a parameter that every store takes
STATES = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MLflow:
    """`MLFLOW_EXPERIMENT_NAME` names another experiment than "epochal". A run that goes on goes on there as well."""

    def __init__(self, uri: str, run: Run | None, config: Mapping[str, Any]) -> None:
        self._uri, self._run, self._config = uri, run, config
        self._metrics: list[Any] = []
        self._known: dict[str, int] = {}  # by metric the last step that is there from before

    def begin(self, started: RunStarted) -> None:
        """Make the run there, or find it again."""
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        uri = self._uri
        if "://" not in uri:
            uri = Path(uri).expanduser().resolve().as_uri()
        if uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer ones want to be told that a folder is wanted
        self._client: Any = MlflowClient(tracking_uri=uri)
        self._id = self._earlier() if started.step else ""
        if self._id:
            self._client.update_run(self._id, status="RUNNING")
            for name in self._client.get_run(self._id).data.metrics:
                self._known[name] = max((item.step for item in self._client.get_metric_history(self._id, name)), default=0)
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found is not None else self._client.create_experiment(name)
        run_name = self._run.name if self._run is not None else started.name
        tags = {"epochal.path": started.path or "", "epochal.device": started.device, "epochal.execution": started.execution}
        self._id = self._client.create_run(experiment, run_name=run_name, tags=tags).info.run_id
        parameters = [Param(key, str(value)[:LONGEST]) for key, value in self._config.items()]
        for first in range(0, len(parameters), PARAMETERS):
            self._client.log_batch(self._id, params=parameters[first : first + PARAMETERS])
        if self._run is not None:
            files.write_atomically(self._run.path / FILE, strict_json.encode({"uri": self._uri, "run": self._id}))

    def _earlier(self) -> str:
        try:
            values = strict_json.decode((self._run.path / FILE).read_bytes()) if self._run is not None else {}
            return str(values["run"]) if values["uri"] == self._uri else ""
        except (OSError, ValueError, TypeError, KeyError):
            return ""

    def log(self, step: int, values: Mapping[str, float], at: float) -> None:
        """Keep them until the event that they are of is whole."""
        from mlflow.entities import Metric

        for name, value in values.items():
            if step > self._known.get(name, -1) and not math.isnan(value):
                self._metrics.append(Metric(name, value, round(at * 1000), step))

    def take(self, event: Event) -> None:
        """Send what is of this event."""
        metrics, self._metrics = self._metrics, []
        for first in range(0, len(metrics), AT_ONCE):
            self._client.log_batch(self._id, metrics=metrics[first : first + AT_ONCE])

    def end(self, ended: RunEnded) -> None:
        """Say how the run ended."""
        self._client.set_tag(self._id, "epochal.reason", ended.reason)
        self._client.set_terminated(self._id, STATES[ended.state])
