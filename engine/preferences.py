"""What a person set for good: one TOML file in their configuration directory, which the console keeps and a person may edit."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.catalog.fields import Field, kind_of
from engine.errors import nearest, plain
from engine.recipe_text import to_toml
from engine.run import files

NAME = "settings.toml"
PANES = ("recipe", "epochs", "device", "output")  # that may be hidden


def _field(key: str, default: Any, **rules: Any) -> Field:
    return Field(key=key, kind="table" if isinstance(default, dict) else kind_of(default), default=default, **rules)


SETTINGS: Mapping[str, Field] = {
    field.key: field
    for field in (
        _field("theme", ""),
        _field("link", "auto", choices=("auto", "fast", "slow")),  # to the terminal; auto: slow over SSH
        _field("guide.welcome", True),
        _field("guide.tour", True),
        _field("attention.terminal", ""),
        _field("attention.command", ""),
        _field("attention.webhook", "", pattern=r"(https?://\S+)?", pattern_words="a URL that begins with http:// or https://"),
        _field("attention.stall_seconds", 120.0, minimum=1, maximum=1e9),
        _field("chart.metric", "loss"),
        _field("chart.smoothing", 0.6, minimum=0.0, maximum=0.999),
        _field("chart.across", "step", choices=("step", "epoch", "time")),
        _field("chart.clip", False),
        _field("chart.recent", False),
        _field("chart.log", {}, item="boolean", pattern_words="a table of true and false by metric"),
        _field("layout.hidden", [], item="text", choices=PANES),
        _field("layout.right", 36, minimum=24, maximum=80),
        _field("layout.epochs", 11, minimum=4, maximum=40),
        _field("layout.output", 5, minimum=3, maximum=30),
    )
}


def directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where a person's own files are: $EPOCHAL_CONFIG, else `epochal` in $XDG_CONFIG_HOME or ~/.config."""
    if own := environment.get("EPOCHAL_CONFIG"):
        return Path(own)
    return Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "epochal"


class Preferences:
    """The settings by dotted key, each with its default where the file says nothing.

    `problems` are sentences on what of the file could not be used. Without a path nothing is read or kept.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.problems: list[str] = []
        self._path = path
        self._damaged = False
        self._changed: dict[str, Any] = {}  # since the file was read or written
        self._values: dict[str, Any] = {}
        if path is not None:
            self._take(self._read(path), path)

    @classmethod
    def of_user(cls, environment: Mapping[str, str] = os.environ) -> Preferences:
        """Those of the person who runs this."""
        try:
            return cls(directory(environment) / NAME)
        except RuntimeError as error:  # there is no home directory
            preferences = cls()
            preferences.problems.append(f"no settings are kept: {error}")
            return preferences

    def __getitem__(self, key: str) -> Any:
        return self._values.get(key, SETTINGS[key].default)

    def __setitem__(self, key: str, value: Any) -> None:
        if self[key] != value:
            self._values[key] = self._changed[key] = value

    @property
    def changed(self) -> bool:
        """Whether there is something that the file does not have yet."""
        return bool(self._changed)

    def save(self) -> None:
        """Put what was changed into the file as it is by now: another console may have written to it. OSError."""
        changed, self._changed = self._changed, {}
        if self._path is None or not changed:
            return

        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._damaged:
            files.replace(self._path, self._path.with_name(NAME + ".damaged"))
            self._damaged = False
        try:
            values = tomllib.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            values = {}
        for key, value in changed.items():
            section, _, inner = key.rpartition(".")
            if section:
                table = values.get(section)
                values[section] = {**(table if isinstance(table, Mapping) else {}), inner: value}
            else:
                values[inner] = value
        text = "# of epochal's console; may be edited while none is open\n" + to_toml(values)
        files.write_atomically(self._path, text.encode(), durable=False)

    def _read(self, path: Path) -> Mapping[str, Any]:
        try:
            return tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:
            self.problems.append(f"{path} can't be read, so the defaults hold: {error.strerror}")
        except (ValueError, RecursionError) as error:
            self._damaged = True
            self.problems.append(
                f"{path} is damaged, so the defaults hold and it is kept as {NAME}.damaged: {plain(str(error))}"
            )
        return {}

    def _take(self, values: Mapping[str, Any], path: Path) -> None:
        given = {key: value for key, value in values.items() if key in SETTINGS or not isinstance(value, Mapping)}
        for section, table in values.items():
            if section not in given:
                given |= {f"{section}.{key}": value for key, value in table.items()}
        for key, value in given.items():
            if key not in SETTINGS:
                self.problems.append(f"{path}: {plain(key)} is unknown{nearest(key, SETTINGS)}")
            elif problem := SETTINGS[key].problem("", value):
                self.problems.append(f"{path}: {problem.message}")
            else:
                self._values[key] = SETTINGS[key].clean(value)
