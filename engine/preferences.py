"""What a person set for good: one TOML file in their configuration directory, which the console keeps and a person may edit."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import nearest, plain

NAME = "settings.toml"
PANES = ("recipe", "epochs", "device", "output")  # that may be hidden


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: its default, which says its type too, and what is allowed."""

    default: Any
    choices: tuple[str, ...] = ()
    least: float = -math.inf
    most: float = math.inf
    pattern: str = ""
    expects: str = ""  # in words, where the rest does not say it

    def wrong(self, value: Any) -> str:
        """What would be allowed in the place of `value`; nothing where it is."""
        if not self._is_right(value):
            kinds = {
                bool: "true or false",
                int: "a whole number",
                float: "a number",
                str: "text",
                dict: "a table",
                list: "a list",
            }
            between = f" from {self.least:g} to {self.most:g}" if self.most < math.inf else ""
            said = f"of {', '.join(self.choices)}" if isinstance(self.default, list) else f"one of {', '.join(self.choices)}"
            kind = "a list " if isinstance(self.default, list) else ""
            return self.expects or (kind + said if self.choices else kinds[type(self.default)] + between)
        return ""

    def _is_right(self, value: Any) -> bool:
        kinds = (int, float) if isinstance(self.default, float) else type(self.default)
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(self.default, bool):
            return False
        if isinstance(value, list):
            return all(item in self.choices for item in value)
        if isinstance(value, Mapping):
            return all(isinstance(item, bool) for item in value.values())
        if isinstance(value, str):
            return (not self.choices or value in self.choices) and (
                not value or bool(re.fullmatch(self.pattern or ".*", value))
            )
        return self.least <= value <= self.most  # False for what is not a number


SETTINGS: Mapping[str, Setting] = {
    "theme": Setting(""),
    "link": Setting("auto", choices=("auto", "fast", "slow")),  # to the terminal; auto: slow over SSH
    "guide.welcome": Setting(True),
    "guide.tour": Setting(True),
    "attention.terminal": Setting(""),
    "attention.command": Setting(""),
    "attention.webhook": Setting("", pattern=r"https?://\S+", expects="a URL that begins with http:// or https://"),
    "attention.stall_seconds": Setting(120.0, least=1, most=1e9),
    "chart.metric": Setting("loss"),
    "chart.smoothing": Setting(0.6, least=0.0, most=0.999),
    "chart.across": Setting("step", choices=("step", "epoch", "time")),
    "chart.clip": Setting(False),
    "chart.recent": Setting(False),
    "chart.log": Setting({}, expects="a table of true and false by metric"),
    "layout.hidden": Setting([], choices=PANES),
    "layout.right": Setting(36, least=24, most=80),
    "layout.epochs": Setting(11, least=4, most=40),
    "layout.output": Setting(5, least=3, most=30),
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
        from engine.recipe_text import to_toml
        from engine.run import files

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
            elif allowed := SETTINGS[key].wrong(value):
                close = nearest(value, SETTINGS[key].choices) if isinstance(value, str) else ""
                self.problems.append(f"{path}: {key} is {plain(repr(value))[:100]} and must be {allowed}{close}")
            else:
                self._values[key] = value
