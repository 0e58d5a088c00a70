"""Curves that the console draws itself are plotext's, dot for dot."""

import plotext
from hypothesis import given, settings
from hypothesis import strategies as st

from tui.widgets.canvas import Canvas

POSITION = st.integers(0, 1000).map(lambda n: n / 1000)
POINTS = st.lists(st.tuples(POSITION, POSITION), min_size=1, max_size=30)


def by_plotext(curves, width, height, marker, joined):
    plotext.clear_figure()
    plotext.limit_size(False, False)
    plotext.plot_size(width, height)
    plotext.theme("clear")
    plotext.xaxes(False, False)
    plotext.yaxes(False, False)
    plotext.xticks([])
    plotext.yticks([])
    plotext.xlim(0, 1)
    plotext.ylim(0, 1)
    for curve in curves:
        (plotext.plot if joined else plotext.scatter)([x for x, _ in curve], [y for _, y in curve], marker=marker)
    return plotext.uncolorize(plotext.build()).splitlines()


@settings(max_examples=60, deadline=None)
@given(
    curves=st.lists(POINTS, min_size=1, max_size=3),
    width=st.integers(1, 60),
    height=st.integers(1, 20),
    braille=st.booleans(),
    joined=st.booleans(),
)
def test_curves_are_drawn_as_plotext_draws_them(curves, width, height, braille, joined):
    canvas = Canvas([" " * width] * height, range(width), range(height - 1, -1, -1), braille=braille)
    for curve in curves:
        (canvas.line if joined else canvas.dots)([x for x, _ in curve], [y for _, y in curve], "+", "train")
    drawn = ["".join(text for text, _ in row) for row in canvas.rows()]
    assert drawn == by_plotext(curves, width, height, "braille" if braille else "+", joined)


def test_what_is_drawn_later_has_the_cell_and_its_role():
    canvas = Canvas([" " * 9] * 3, range(2, 9), range(1, -1, -1), braille=True)
    canvas.upright(0.0, "┊", "faint")
    canvas.line([0, 1], [0, 0], "", "train")
    canvas.mark(1, 0, "★", "mark")
    assert canvas.rows() == [
        [("  ┊      ", "faint")],
        [("  ", "faint"), ("⣀⣀⣀⣀⣀⣀", "train"), ("★", "mark")],
        [(" " * 9, "faint")],
    ]
