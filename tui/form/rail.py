"""The rail beside the form: what the choice means, measured by a dry run in the background; one line on a small screen."""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from textual.content import Content
from textual.widgets import Static

from engine.errors import EpochalError
from tui.door import Engine
from tui.form.model import FormModel
from tui.widgets.formats import took

if TYPE_CHECKING:
    from tui.dry_run import DryRun

QUIET_SECONDS = 1.2  # without a change, before it is measured
LOOK_SECONDS = 0.2


class Rail(Static):
    """Measures what the form holds once nothing has been typed for a moment, never beside a training."""

    def __init__(self, engine: Engine) -> None:
        super().__init__("", markup=False)
        self._engine = engine
        self._model: FormModel | None = None
        self._facts: Mapping[str, Any] = {}
        self._state = ""
        self._run: DryRun | None = None
        self._tried: tuple[str, tuple[str, ...]] | None = None  # what was measured last
        self._asked: tuple[Mapping[str, Any], queue.SimpleQueue[str]] | None = None  # a thread says whether to measure these

    def on_mount(self) -> None:
        self._quiet = self.set_timer(QUIET_SECONDS, self._begin, pause=True)
        self._poll = self.set_interval(LOOK_SECONDS, self._look, pause=True)
        self.draw()

    def on_unmount(self) -> None:
        self.end()

    def on_resize(self) -> None:
        self.draw()

    def of(self, model: FormModel) -> None:
        """Say what this means from now on."""
        self._model = model
        if self._wanted() == self._tried:
            return
        self.end()
        self._quiet.stop()
        self._quiet = self.set_timer(QUIET_SECONDS, self._begin)
        self._state = "measured in a moment …"
        self.draw()

    def end(self) -> None:
        """Measure no longer what is being measured."""
        if self._run is not None:
            self._run.cancel()
        if self._run is not None or self._asked is not None:
            self._run = self._asked = self._tried = None
            self._poll.pause()

    def give_way(self, yes: bool) -> None:
        """To a pane that needs the room."""
        self.set_class(yes, "-away")

    def take(self, facts: Mapping[str, Any]) -> None:
        """What a dry run that the person asked for has measured."""
        if facts:
            self.end()
            self._facts, self._state, self._tried = facts, "", self._wanted()
            self.draw()

    def _wanted(self) -> tuple[str, tuple[str, ...]] | None:
        if self._model is None:
            return None
        values = {key: value for key, value in self._model.values.items() if key != "name"}
        return repr(values), tuple(f"{key}={text}" for key, text in self._model.several.items())

    def _begin(self) -> None:
        if self._model is None:
            return
        self._facts = {}
        if self._model.problems():
            self._state = "after the mistakes are put right"
        elif not self.screen.is_current:
            self._state, self._tried = "not measured", None
        else:
            self._tried, self._state = self._wanted(), "measuring …"
            self._asked = copy.deepcopy(self._model.values), queue.SimpleQueue()
            threading.Thread(target=self._ask, args=self._asked, name="epochal-rail", daemon=True).start()
            self._poll.resume()
        self.draw()

    def _ask(self, values: Mapping[str, Any], answer: queue.SimpleQueue[str]) -> None:
        """Why it is not to be measured: all runs are looked at for that, perhaps on a slow disk."""
        try:
            answer.put(self._engine.unmeasured(values))
        except EpochalError as error:
            answer.put(str(error))

    def _look(self) -> None:
        if self._asked is not None and not self._asked[1].empty():
            (values, answer), self._asked = self._asked, None
            if why := answer.get():
                self._state, self._tried = f"P measures it: {why}", None
                self.draw()
                self._poll.pause()
            elif self._tried is not None:
                self._run = self._engine.measure(values, self._tried[1])
        if self._run is None or (found := self._run.poll()) is None:
            return
        self._run = None
        self._facts = found.facts
        failed = found.failure or next((problem.message for problem in found.problems), "")
        self._state = f"P says more: {failed}" if failed else ""
        self.draw()
        self._poll.pause()

    # drawing

    def draw(self) -> None:
        """Show what is known."""
        if self.screen.has_class("-small"):
            self.update(Content.styled(f" {self._line() or self._state}", "$text-muted"))
            return
        lines: list[Content] = [Content.styled("what it means", "bold"), Content("")]
        for what, value in self._rows():
            lines.append(
                Content.assemble((f"{what:<14}", "$text-muted"), value) if value else Content.styled(what, "$text-muted")
            )
        known = "measured by a dry run; without validation" if self._facts else "measured once torch is loaded"
        state = self._state or known
        self.update(Content("\n").join([*lines, Content(""), Content.styled(state, "$text-muted")]))

    def _line(self) -> str:
        """The most telling of it, for one line."""
        facts, sweep = self._facts, dict(self._sweep())
        words = [sweep["runs"]] if sweep else []
        words += [sweep["all of them"]] if "all of them" in sweep else []
        words += [f"{sweep['together'].partition(',')[0]} together"] if "together" in sweep else []
        if facts:
            words += [f"{_parameters(facts)} parameters", _size(facts["memory"])]
            if "steps" in facts:
                epoch = f"{facts['steps_per_epoch']:,} steps, {_span(facts['steps_per_epoch'] * facts['step'])} an epoch"
                words += [epoch, f"the run {_span(facts['steps'] * facts['step'])}"]
            else:
                words.append(f"{_span(facts['step'])} a step")
        return " · ".join(words)

    def _rows(self) -> Sequence[tuple[str, str]]:
        facts = self._facts
        rows: list[tuple[str, str]] = []
        if facts:
            rows.append(("parameters", _parameters(facts)))
            if "steps_per_epoch" in facts:
                rows += [("steps", f"{facts['steps_per_epoch']:,} an epoch")]
            rows.append(("memory", _size(facts["memory"])))
            rows.append(("a step", _span(facts["step"])))
            if "steps_per_epoch" in facts:
                rows.append(("an epoch", _span(facts["steps_per_epoch"] * facts["step"])))
            if "steps" in facts:
                rows.append(("the run", _span(facts["steps"] * facts["step"])))
        return [*rows, *self._sweep()]

    def _sweep(self) -> list[tuple[str, str]]:
        """How many runs several values make, how long they take, and which of them train together."""
        if self._model is None or not self._model.several:
            return []
        try:
            from engine.sweep import count

            runs = count(self._model.axes)
        except EpochalError:  # stands beside its field
            return []
        rows = [("runs", f"{runs:,} runs")]
        groups = self._facts.get("sweep", [])
        together = [size for size, why in groups if size > 1 and not why]
        if "steps" in self._facts and groups:
            seconds = _span(runs * self._facts["steps"] * self._facts["step"])
            rows.append(("all of them", f"{'at most ' * bool(together)}{seconds}"))
        if together:
            rows.append(("together", " + ".join(map(str, together)) + ", each step as one"))
        alone = sum(size for size, why in groups if size == 1 or why)
        if alone:
            rows.append(("one by one", f"{alone}"))
        return rows + [(f"because {why}", "") for why in dict.fromkeys(why for _, why in groups if why)]


def _span(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.0995 else took(seconds)


def _parameters(facts: Mapping[str, Any]) -> str:
    """How many are trained; of how many, where some are frozen."""
    trained, frozen = facts["parameters"], facts.get("frozen", 0)
    return f"{trained:,} of {trained + frozen:,}" if frozen else f"{trained:,}"


def _size(bytes: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if bytes >= 0.1 * size:
            return f"{bytes / size:.3g} {unit}"
    return f"{bytes / 2**10:.3g} KiB"
