"""The person's settings file: what is read, what is refused in one sentence, what is written and what is left alone."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from engine.preferences import SETTINGS, Preferences, directory


def file_with(where: Path, text: str) -> Path:
    path = where / "settings.toml"
    path.write_text(text)
    return path


def test_where_it_is():
    assert directory({"EPOCHAL_CONFIG": "/a/b", "XDG_CONFIG_HOME": "/x"}) == Path("/a/b")
    assert directory({"XDG_CONFIG_HOME": "/x"}) == Path("/x/epochal")
    assert directory({}) == Path.home() / ".config" / "epochal"


def test_what_is_set_is_there_the_next_time(tmp_path: Path):
    path = tmp_path / "new" / "settings.toml"
    one = Preferences(path)
    assert not one.problems and not one.changed
    one["theme"], one["chart.smoothing"], one["chart.log"], one["layout.hidden"] = "x", 0.9, {"loss": False}, ["device"]
    assert one.changed
    one.save()
    assert not one.changed
    other = Preferences(path)
    assert not other.problems
    assert (other["theme"], other["chart.smoothing"], other["chart.log"]) == ("x", 0.9, {"loss": False})
    assert other["layout.hidden"] == ["device"] and other["layout.right"] == SETTINGS["layout.right"].default
    assert [item.name for item in path.parent.iterdir()] == ["settings.toml"]


def test_nothing_is_written_without_a_change(tmp_path: Path):
    preferences = Preferences(tmp_path / "settings.toml")
    preferences["theme"] = preferences["theme"]
    preferences.save()
    assert not list(tmp_path.iterdir())


def test_two_consoles_do_not_undo_each_other(tmp_path: Path):
    path = file_with(tmp_path, 'theme = "a"\n[attention]\nwebhook = "https://x/y"\nmine = 3\n')
    one, other = Preferences(path), Preferences(path)
    one["theme"] = "b"
    one.save()
    other["chart.clip"] = True
    other.save()
    values = tomllib.loads(path.read_text())
    assert values == {"theme": "b", "attention": {"webhook": "https://x/y", "mine": 3}, "chart": {"clip": True}}


@pytest.mark.parametrize("content", [b"theme = = 3", b"\xff\xfe", b"a = " + b"[" * 100_000, b"theme = 1\ntheme = 2"])
def test_a_damaged_file_is_one_sentence_and_is_kept(tmp_path: Path, content: bytes):
    path = tmp_path / "settings.toml"
    path.write_bytes(content)
    preferences = Preferences(path)
    (sentence,) = preferences.problems
    assert "settings.toml is damaged, so the defaults hold" in sentence and "\n" not in sentence
    assert all(preferences[key] == setting.default for key, setting in SETTINGS.items())
    assert path.read_bytes() == content
    preferences["theme"] = "x"
    preferences.save()
    assert path.with_name("settings.toml.damaged").read_bytes() == content and Preferences(path)["theme"] == "x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[layout]\nrihgt = 30", "layout.rihgt is unknown; the nearest is 'layout.right'"),
        ("colour = 3", "colour is unknown"),
        ("[layout]\nright = 3.5", "layout.right is 3.5; it must be an integer from 24 to 80"),
        ("[layout]\nright = 300", "layout.right is 300; it must be an integer from 24 to 80"),
        (
            "[layout]\nhidden = ['chart']",
            "layout.hidden is ['chart']; it must be a list of texts, each one of recipe, epochs,",
        ),
        ("[chart]\nsmoothing = nan", "chart.smoothing is nan; it must be a finite number from 0 to 0.999"),
        ("[chart]\nsmoothing = true", "chart.smoothing is true; it must be a number"),
        ("[chart]\nacross = 'epochs'", "chart.across is 'epochs'; it must be one of step, epoch, time; the nearest is 'epoch'"),
        ("[chart]\nlog = { loss = 1 }", "chart.log is {'loss': 1}; it must be a table of true and false by metric"),
        ("[attention]\nwebhook = 'ftp://x'", "attention.webhook is 'ftp://x'; it must be a URL that begins with http"),
        ("chart = 3", "chart is unknown"),
        ("theme = 7", "theme is 7; it must be text"),
    ],
)
def test_one_wrong_value_is_one_sentence_and_the_rest_holds(tmp_path: Path, text: str, said: str):
    preferences = Preferences(file_with(tmp_path, f"guide = {{ tour = false }}\n{text}\n"))
    (sentence,) = preferences.problems
    assert said in sentence and preferences["guide.tour"] is False
    assert (
        preferences["layout.right"] == 36 and preferences["chart.smoothing"] == 0.6 and preferences["attention.webhook"] == ""
    )


def test_a_disk_that_takes_nothing_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    preferences = Preferences(tmp_path / "file" / "settings.toml")
    assert len(preferences.problems) == 1 and "can't be read" in preferences.problems[0]
    preferences["theme"] = "x"
    with pytest.raises(OSError):
        preferences.save()
