import io
import xml.etree.ElementTree as ET
from itertools import combinations

import numpy as np
import pytest
from matplotlib.text import Annotation

from qaudio.cards.pictures import write
from qaudio.compare.gather import MEASURES, gather
from qaudio.compare.plots import PLOTTED, draw
from tests.support.comparison import made


def labels(ax):
    return [text for text in ax.texts if isinstance(text, Annotation) and text.get_text()]


def marks(ax):
    """Every point as (x, y, low, high), from the error bars."""
    found = []
    for container in ax.containers:
        line, _, (bars,) = container.lines
        for (x, y), bar in zip(line.get_xydata(), bars.get_segments(), strict=True):
            found.append((x, y, bar[0][1], bar[1][1]))
    return sorted(found)


def test_a_row_for_every_protocol_and_a_plot_for_every_cost(comparison):
    figure = draw(comparison)
    assert len(figure.axes) == len(comparison.groups) * len(PLOTTED)
    for n, group in enumerate(comparison.groups):
        row = figure.axes[3 * n : 3 * n + 3]
        assert row[0].get_title("left") == f"{group.title}: {group.protocol}"
        for ax, key in zip(row, PLOTTED, strict=True):
            having = [m for m in group.members if MEASURES[key].of(m) is not None]
            assert ax.get_xscale() == "log"
            assert sorted(text.get_text() for text in labels(ax)) == sorted(m.name for m in having)
            expected = sorted(
                (MEASURES[key].of(m), 100 * m.mean, 100 * m.low, 100 * m.high) for m in having
            )
            assert np.allclose(marks(ax), expected)


def test_the_front_is_drawn(comparison):
    ax = draw(comparison).axes[3]
    (front,) = comparison.groups[1].fronts(MEASURES["params"])
    assert len(front) > 1
    line = next(line for line in ax.lines if line.get_drawstyle() == "steps-post")
    assert np.allclose(line.get_xydata(), [(value, 100 * m.mean) for value, m in front])


def test_fronts_of_several_devices_are_apart_and_named(write_entry):
    folders = [
        write_entry("a.made", made(1), latency=10.0, device="phone"),
        write_entry("b.made", made(2), latency=1.0, device="server"),
    ]
    ax = draw(gather(folders)).axes[2]
    lines = [line for line in ax.lines if line.get_drawstyle() == "steps-post"]
    assert [line.get_label() for line in lines] == [
        "10 s of sound, phone", "10 s of sound, server",
    ]  # fmt: skip
    assert len({line.get_linestyle() for line in lines}) == 2


def test_labels_of_near_points_do_not_cover_one_another(write_entry):
    folders = [
        write_entry(f"qcnn10_050.made_pruned{n}", made(n // 2, 2.0), params=100_000 + 900 * n,
                    folder=str(n))
        for n in range(10, 22)
    ]  # fmt: skip
    figure = draw(gather(folders))
    boxes = [text.get_window_extent() for text in labels(figure.axes[0])]
    assert len(boxes) == 12
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]


def test_a_cost_that_nobody_measured_is_said(write_entry):
    ax = draw(gather([write_entry("a.made", made(1), latency=None)])).axes[2]
    assert [text.get_text() for text in ax.texts] == ["no latency was measured"]
    assert "no entry has results" in draw(gather([])).texts[0].get_text()


@pytest.mark.filterwarnings("error")
def test_svg_is_text_and_names_are_no_markup(hostile):
    figure = draw(gather(hostile))
    first, second = io.BytesIO(), io.BytesIO()
    write(figure, first, "svg")
    write(figure, second, "svg")
    assert first.getvalue() == second.getvalue()
    root = ET.fromstring(first.getvalue())
    assert not [element for element in root.iter() if element.tag.endswith(("script", "img"))]
    texts = {"".join(element.itertext()) for element in root.iter() if element.tag.endswith("text")}
    assert any(text.startswith("1</script><script>") for text in texts)
    assert "parameters" in texts


def test_png(comparison):
    file = io.BytesIO()
    write(draw(comparison), file, "png")
    assert file.getvalue().startswith(b"\x89PNG")


def test_names_in_other_scripts_raise_no_warning(write_entry, recwarn):
    found = gather([write_entry("短い.made", made(1))])
    write(draw(found), io.BytesIO(), "png")
    assert not recwarn.list
