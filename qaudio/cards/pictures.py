"""Figures as SVG or PNG that carry, as text, the numbers that they show.

The bytes of a picture depend on the versions of the libraries that drew it; its numbers do not.
"""

from __future__ import annotations

import html
import io
import json
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from qaudio.errors import EntryError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KEY = "Description"  # a PNG's own name for such text
# Where a label may stand, in points from its mark: near places first, then farther ones.
PLACES = [
    (side * x, y)
    for distance in range(0, 120, 12)
    for y in ((distance + 5, -distance - 5) if distance else (5, -5))
    for x, side in ((7, 1), (7, -1))
]


def write(figure: Figure, file: IO[bytes], kind: str, **described: str) -> None:
    """Write a figure as "png" or "svg", whose text stays text; the same figure gives the same."""
    import matplotlib

    metadata = {"Date": None, **described} if kind == "svg" else described
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "qaudio"}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in other scripts
        figure.savefig(file, format=kind, metadata=metadata)


def to_svg(figure: Figure, numbers: str) -> str:
    """The figure as SVG text, with the numbers that it shows, in words, as its description."""
    file = io.BytesIO()
    write(figure, file, "svg", Description=numbers)
    return file.getvalue().decode()


def shows(svg: str, numbers: str) -> bool:
    """Whether an SVG shows these numbers, whoever drew it."""
    return html.escape(numbers, quote=False) in svg


def write_png(figure: Figure, numbers: Any, path: Path) -> None:
    """Write the figure as PNG, with its numbers as JSON."""
    note = {KEY: json.dumps(numbers), "Software": None}
    figure.savefig(path, metadata=note, pil_kwargs={"optimize": True})


def numbers_of(path: Path) -> Any:
    """The numbers that a PNG of `write_png` carries; raises EntryError."""
    from PIL import Image

    try:
        with warnings.catch_warnings(action="error"), Image.open(path, formats=["PNG"]) as picture:
            return json.loads(picture.info[KEY])  # stands before the pixels, which stay packed
    except Exception as error:  # what a damaged file makes the reader raise is not documented
        raise EntryError(f"{path.parent.name}: {path.name} is not readable ({error})") from None


def place_labels(
    ax: Axes,
    labels: list[tuple[str, float, float]],
    taken: list[Any],
    places: list[tuple[int, int]] = PLACES,
) -> None:
    """Name points, each where its name covers least of what is there.

    Args:
        ax: of a figure that was laid out and whose layout stays.
        labels: of each point, its name and data coordinates.
        taken: boxes (matplotlib's Bbox, in pixels) that no name should cover; those of the names
            are added.
        places: as `PLACES`, the ones that are liked best first.
    """
    from matplotlib.transforms import Bbox

    scale = ax.figure.dpi / 72  # pixels in a point
    for name, value, score in labels:
        point = value, score
        label = ax.annotate(
            name, point, (0, 0), textcoords="offset points", fontsize=8,
            parse_math=False, annotation_clip=False,
        )  # fmt: skip
        size = label.get_window_extent()
        cx, cy = ax.transData.transform(point)
        best = None
        for x, y in places:
            left = cx + x * scale - (size.width if x < 0 else 0)
            bottom = cy + y * scale - (size.height if y < 0 else 0)
            box = Bbox.from_bounds(left, bottom, size.width, size.height)
            outside = size.width * size.height - _overlap(box, ax.bbox)
            covered = outside + sum(_overlap(box, other) for other in taken)
            if best is None or covered < best[0] - 1:
                best = covered, (x, y), box
            if best[0] < 1:
                break
        assert best is not None
        _, (x, y), box = best
        label.set_position((x, y))
        label.set(ha="left" if x > 0 else "right", va="bottom" if y > 0 else "top")
        if abs(y) > 16:
            line = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.6}
            ax.annotate("", point, (0.6 * x, y), textcoords="offset points", arrowprops=line)
        taken.append(box)


def _overlap(one: Any, other: Any) -> float:
    """Area that two boxes share, in square pixels."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(width, 0) * max(height, 0)
