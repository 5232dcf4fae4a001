import xml.etree.ElementTree as ET

import numpy as np
import pytest

from qaudio.evaluation.result import Difference
from qaudio.study import forest_plot
from qaudio.study.grid import Cell

SVG = "{http://www.w3.org/2000/svg}"


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


def parsed(study):
    root = ET.fromstring(forest_plot.draw(study))
    texts = [
        (text.text, float(text.get("x")), float(text.get("y"))) for text in root.iter(f"{SVG}text")
    ]
    return root, texts


def ticks(texts, panel):
    """Points and where they lie, of the upper scale of a panel."""
    top = min(y for text, _, y in texts if text == "0")
    found = [(int(text), x) for text, x, y in texts if y == top]
    half = len(found) // 2
    return found[:half] if panel == 0 else found[half:]


def test_marks_lie_where_the_scale_says(study):
    root, texts = parsed(study)
    marks = list(root.iter(f"{SVG}g"))
    assert len(marks) == 3
    for mark, panel, (mean, low, high) in zip(
        marks, (0, 1, 1), study.differences.values(), strict=True
    ):
        points, places = zip(*ticks(texts, panel), strict=True)
        line, circle = mark.find(f"{SVG}line"), mark.find(f"{SVG}circle")
        found = [float(line.get("x1")), float(circle.get("cx")), float(line.get("x2"))]
        np.testing.assert_allclose(found, np.interp([low, mean, high], points, places), atol=0.1)
        assert points[0] <= low and high <= points[-1]


def test_a_mark_is_filled_where_the_interval_leaves_zero_out(study):
    fills = [circle.get("fill") for circle in parsed(study)[0].iter(f"{SVG}circle")]
    assert fills == [forest_plot.INK, "white", forest_plot.INK]


def test_marks_stand_beside_their_names_and_what_was_not_run_is_left_out(study):
    root, texts = parsed(study)
    labels = {text: y for text, x, y in texts if x < forest_plot.LABELS - forest_plot.GAP}
    assert list(labels) == ["First & last", "<small>", "Second", "<later>"]
    assert sorted(labels.values()) == list(labels.values())
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert titles == [
        "<small>: -4.0 (-6.0 to -2.0)", "<small>: +1.0 (-1.0 to +3.0)",
        "<later>: +3.0 (+1.0 to +5.0)",
    ]  # fmt: skip
    for circle, name in zip(
        root.iter(f"{SVG}circle"), ("<small>", "<small>", "<later>"), strict=True
    ):
        assert abs(float(circle.get("cy")) - labels[name]) < forest_plot.LINE / 2


@pytest.mark.parametrize("width", [0, 0.01, 3, 40, 100])
def test_scales_have_few_ticks_and_hold_every_interval(width):
    study = Made([("All", ["whole", "small"])], {("one", "small"): (0, -width, width)})
    found = ticks(parsed(study)[1], 0)
    assert 3 <= len(found) <= 12
    assert found[0][0] <= -width and width <= found[-1][0]


def test_a_study_of_which_nothing_was_run_draws():
    root, texts = parsed(Made([("All", ["whole", "small"])], {}))
    assert not list(root.iter(f"{SVG}g"))
    assert "All" not in [text for text, _, _ in texts]
