"""How numbers are written."""

import math
from types import SimpleNamespace

import pytest
import rich.cells
from hypothesis import given
from hypothesis import strategies as st

from tui.__main__ import main
from tui.widgets import formats
from tui.widgets.formats import cell_len, clock, cut, cut_middle, left, number, plain, rate, right, short, took


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.6122, "0.6122"), (1.36789, "1.368"), (12.3456, "12.35"), (812.44, "812.4"), (4321.0, "4321"), (54321.0, "5.43e4"),
     (0.0, "0.0000"), (0.05, "0.0500"), (0.00123, "1.23e-3"), (0.99999, "1.000"), (-2.5, "-2.500"), (math.nan, "NaN"),
     (math.inf, "inf"), (-math.inf, "-inf"), (None, "–")],
)  # fmt: skip
def test_metrics(value, shown):
    assert number(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(3e-4, "3.0e-4"), (1.25e-4, "1.25e-4"), (1e-3, "1.0e-3"), (0.05, "0.05"), (0.1, "0.1"), (0.0, "0")]
)
def test_learning_rates(value, shown):
    assert rate(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(9.25, "0:09"), (66, "1:06"), (7384, "2:03:04"), (273_900, "3d 04:05"), (-3, "0:00"), (None, "–")]
)
def test_durations(seconds, shown):
    assert clock(seconds) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0.2149, "0.21s"), (0.999, "0:01"), (1.4, "0:01"), (75, "1:15")])
def test_epochs_take_fractions_of_a_second_too(seconds, shown):
    assert took(seconds) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(87, "87"), (12_040, "12.0k"), (385_280, "385k"), (1_250_000, "1.25M"), (999.7, "1.00k"), (4.25, "4.2")],
)
def test_counts(value, shown):
    assert short(value) == shown


@given(st.floats())
def test_every_number_stays_short(value):
    assert 0 < len(number(value)) <= 10
    assert 0 < len(rate(value)) <= 10


def test_symbols_have_plain_stand_ins_of_the_same_length():
    text = "★ ● ◌ ‖ ✓ ■ ✗ ▸ … – — · ─ │ ┌ ┤ █▌ • ×ß"
    assert plain(text).isascii()
    assert len(plain(text)) == len(text)
    assert plain("run 模型 é") == "run ???? ?", "a wide character has two cells"


@pytest.mark.parametrize(
    ("asked", "term", "ascii"), [("", "xterm", False), ("", "linux", True), ("0", "linux", False), ("1", "xterm", True)]
)
def test_plain_characters_where_they_are_asked_for_and_on_linux_own_console(monkeypatch, asked, term, ascii):
    monkeypatch.setattr("sys.__stdout__", SimpleNamespace(encoding="utf-8"))
    monkeypatch.setenv("EPOCHAL_ASCII", asked)
    monkeypatch.setenv("TERM", term)
    assert formats.plain_terminal() is ascii


def test_a_dumb_terminal_is_told_what_it_can_do(monkeypatch, capsys):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("os.isatty", lambda _: True)
    assert main([]) == 2
    assert capsys.readouterr().err == "epochal: TERM=dumb can't show the console: epochal train RECIPE.toml trains without it\n"


def test_cells_are_counted_as_a_terminal_does():
    assert [c for c in map(chr, range(0x20, 0xD800)) if cell_len(c) != rich.cells.cell_len(c)] == []
    assert cell_len("模型 🚀") == 7


@pytest.mark.parametrize("text", ["digits", "模型-🚀-very-long", "⣀⣀⣀"])
@pytest.mark.parametrize("cells", [4, 9, 20])
def test_texts_are_cut_and_filled_by_cells(text: str, cells: int):
    for shortened in (cut(text, cells), cut_middle(text, cells)):
        assert cell_len(shortened) <= cells and (shortened == text) == (cell_len(text) <= cells)
    assert cut_middle("a-sweep-lr0.01", 9) == "a-sw…0.01"
    short = cut(text, cells)
    assert cell_len(left(short, cells)) == cell_len(right(short, cells)) == cells
    assert left(short, cells).strip() == right(short, cells).strip() == short.strip()
