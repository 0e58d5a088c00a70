"""The chart's pure parts: smoothing, bringing a curve down to columns, and drawing whatever numbers there are."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui.widgets.curves import Smoothed, decimate, smooth
from tui.widgets.plot import Curve, Mark, draw, label

AWKWARD = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(
        [0.0, -0.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, -5e-324, 1e-300, 1.0, 1.0 + 2**-52, 1e12]
    ),
)
POINTS = st.lists(st.tuples(AWKWARD, AWKWARD), max_size=12)
SIZES = st.tuples(st.integers(1, 200), st.integers(1, 60))


def text_of(rows):
    return ["".join(text for text, _ in row) for row in rows]


def curve(points, role):
    return Curve([x for x, _ in points], [y for _, y in points], role)


@settings(max_examples=150, deadline=None)
@given(lines=POINTS, dots=POINTS, marks=POINTS, size=SIZES, log=st.booleans(), braille=st.booleans(), right=st.none() | AWKWARD)
def test_any_numbers_make_a_chart_of_the_asked_size(lines, dots, marks, size, log, braille, right):
    width, height = size
    if right is not None and not math.isfinite(right):
        right = None
    rows = draw(
        [curve(lines, "train"), curve(lines[::2], "val")], [curve(dots, "ghost")], [Mark(x, y, "★") for x, y in marks],
        width, height, right=right, log_y=log, braille=braille,
    )  # fmt: skip
    text = text_of(rows)
    assert len(text) == height
    assert all(len(line) == width for line in text)
    assert "could not be drawn" not in "\n".join(text)
    assert braille or all(line.isascii() for line in text)


def test_a_line_is_drawn_where_its_values_are():
    text = text_of(draw([Curve([0, 100], [0, 1], "train")], [], [], 60, 14, braille=False))
    first, last = text[1], text[-3]
    assert "+" in text[0][40:] and "+" in last[7:20]
    assert first.rfind("+") > last.rfind("+", 7)


def test_roles_come_back_for_what_was_drawn():
    rows = draw([Curve([0, 9], [1, 1], "train"), Curve([0, 9], [2, 2], "val")], [], [Mark(9, 2, "★")], 40, 12)
    drawn = {role: "".join(text for row in rows for text, its in row if its == role) for role in ("train", "val", "mark")}
    assert drawn["mark"] == "★"
    assert all(0x2800 < ord(character) < 0x2900 for role in ("train", "val") for character in drawn[role])
    assert len(drawn["train"]) > 25 and len(drawn["val"]) > 25


def test_what_is_not_finite_is_a_gap():
    whole = text_of(draw([Curve(range(61), [1] * 61, "train")], [], [], 67, 8, braille=False))
    holed = text_of(draw([Curve(range(61), [1] * 20 + [math.nan] * 20 + [1] * 21, "train")], [], [], 67, 8, braille=False))
    line = next(i for i, row in enumerate(whole) if row[8:].count("+") > 50)
    assert "+" not in holed[line][30:45]
    assert holed[line][8:24] == whole[line][8:24]
    none = text_of(draw([Curve([0, 1], [math.nan] * 2, "train")], [], [], 60, 10))
    assert "no value is a number" in "\n".join(none)
    assert "nothing to draw yet" in "\n".join(text_of(draw([], [], [], 60, 10)))


def test_a_logarithmic_axis_leaves_out_what_is_not_positive():
    text = "\n".join(text_of(draw([Curve([0, 1, 2], [0.0, -1.0, math.nan], "train")], [], [], 60, 10, log_y=True)))
    assert "no value is above 0: y leaves the logarithm" in text
    text = "\n".join(text_of(draw([Curve([0, 1, 2], [0.01, 1, 100], "train")], [], [], 60, 16, log_y=True)))
    assert all(f" {tick}┤" in text for tick in ("0.01", "0.1", "1", "10", "100"))


@pytest.mark.parametrize(
    ("value", "step", "shown"),
    [(0, 0.5, "0"), (0.5, 0.5, "0.5"), (1, 0.5, "1.0"), (0.05, 0.05, "0.05"), (1200, 200, "1.2k"), (12_000, 1000, "12k"),
     (3e6, 1e6, "3M"), (1e-5, 1e-5, "1e-5"), (-0.25, 0.05, "-0.25"), (1e12, 1e12, "1e12"), (800, 100, "800")],
)  # fmt: skip
def test_ticks_are_written_shortly(value, step, shown):
    assert label(value, step) == shown


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e12))
def test_ticks_fit_beside_the_axis(value, step):
    assert len(label(round(value / step) * step, step)) <= 6 or abs(value) > 1e5 * step


def test_smoothing_is_the_bias_corrected_average():
    noise = random.Random(0)
    values = [noise.random() for _ in range(50)]
    weight, average, expected = 0.6, 0.0, []
    for n, value in enumerate(values, 1):
        average = weight * average + (1 - weight) * value
        expected.append(average / (1 - weight**n))
    assert smooth(values, weight) == pytest.approx(expected)
    assert smooth(values, 0.0) == values


def test_smoothing_passes_over_gaps():
    smoothed = smooth([1.0, math.nan, 3.0, math.inf], 0.5)
    assert smoothed[0] == 1.0
    assert math.isnan(smoothed[1]) and math.isnan(smoothed[3])
    assert smoothed[2] == pytest.approx(smooth([1.0, 3.0], 0.5)[1])


def test_a_growing_curve_is_smoothed_like_the_whole():
    noise = random.Random(3)
    values = [noise.random() for _ in range(300)]
    growing = Smoothed(0.9)
    for end in (1, 7, 7, 150, 300):
        assert list(growing.of(range(end), values[:end])) == pytest.approx(smooth(values[:end], 0.9))
    for end in (301, 301, 302):  # the last point grows before another follows
        values = [*values[:300], *(noise.random() for _ in range(end - 300))]
        assert list(growing.of(range(end), values)) == pytest.approx(smooth(values, 0.9))
    halved = [(a + b) / 2 for a, b in zip(values[::2], values[1::2], strict=True)]
    assert list(growing.of(range(1, 302, 2), halved)) == pytest.approx(smooth(halved, 0.9))


def test_a_column_holds_the_mean_and_the_extremes_of_its_own_part():
    at = decimate([1, 2, 3, 4], [1.0, 3.0, 5.0, 9.0], [0.5, 3.0, 5.0, 8.0], [1.0, 4.0, 5.0, 9.5], 1, 5, 2)
    assert (at.x, at.mean, at.low, at.high) == ([1.5, 3.5], [2.0, 7.0], [0.5, 5.0], [4.0, 9.5])
