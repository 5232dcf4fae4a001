import pytest

from qaudio.evaluation.result import Difference
from qaudio.study import forest_plot
from qaudio.study.grid import Cell


class Made:
    """Findings and their study; differences are given: (mean, low, high) in points, by cell."""

    benchmarks = ("one", "two")
    reference = "whole"

    def __init__(self, tables, differences):
        self.tables, self.differences = tables, differences
        names = [name for _, cells in tables for name in cells]
        self.cells = {name: Cell(name, f"<{name}>", "", {}, (), {}) for name in names}

    @property
    def study(self):
        return self

    def difference(self, cell, other, benchmark):
        assert other == "whole"
        found = self.differences.get((benchmark, cell))
        if found is None:
            return None
        mean, low, high = (value / 100 for value in found)
        return Difference("accuracy", mean, (low, high), runs=1, clips=9)


@pytest.fixture
def study():
    return Made(
        [("First & last", ["whole", "small"]), ("Second", ["later", "never"]), ("Third", ["none"])],
        {("one", "small"): (-4, -6, -2), ("two", "small"): (1, -1, 3), ("two", "later"): (3, 1, 5)},
    )


def marks(ax):
    """Row, difference, interval in points and whether it is filled, of each mark of a panel."""
    lines = [line for line in ax.lines if line.get_color() == forest_plot.INK]
    return [
        (int(mark.get_ydata()[0]), mark.get_xdata()[0], *line.get_xdata(),
         mark.get_markerfacecolor() == forest_plot.INK)
        for line, mark in zip(lines[::2], lines[1::2], strict=True)
    ]  # fmt: skip


def test_figure_has_a_mark_for_each_difference_filled_where_zero_is_left_out(study):
    one, two = forest_plot.figure(study).axes
    assert marks(one) == [pytest.approx((1, -4, -6, -2, True))]
    assert marks(two) == [
        pytest.approx((1, 1, -1, 3, False)), pytest.approx((3, 3, 1, 5, True))
    ]  # fmt: skip
    for ax in (one, two):
        low, high = ax.get_xlim()
        assert all(low < start and end < high for _, _, start, end, _ in marks(ax))


def test_figure_names_the_rows_and_leaves_out_what_was_not_run(study):
    labels = forest_plot.figure(study).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == [
        "First & last", "<small>", "Second", "<later>"
    ]  # fmt: skip
    assert [label.get_fontweight() for label in labels] == ["bold", "normal"] * 2


def test_picture_follows_from_the_numbers_that_it_shows(study):
    svg = forest_plot.draw(study)
    assert "&lt;small&gt;, two: +1.0 (-1.0 to +3.0)" in svg
    assert forest_plot.draw(study) == svg and forest_plot.follows(svg, study)
    study.differences["two", "later"] = (3, 1, 6)
    assert not forest_plot.follows(svg, study)


@pytest.mark.parametrize("names", [["$", "$$"], ["a_b", "\\frac"]])
def test_names_are_no_formulas(names):
    study = Made([("$^$", ["whole", *names])], {("one", name): (0, -1, 1) for name in names})
    assert forest_plot.follows(forest_plot.draw(study), study)


def test_a_study_of_which_nothing_was_run_draws():
    study = Made([("All", ["whole", "small"])], {})
    assert forest_plot.follows(forest_plot.draw(study), study)
