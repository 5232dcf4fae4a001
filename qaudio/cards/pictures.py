"""Figures as SVG that carry, as text, the numbers that they show.

The bytes of a picture depend on the versions of the libraries that drew it; its numbers do not.
"""

from __future__ import annotations

import html
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def to_svg(figure: Figure, numbers: str) -> str:
    """The figure as SVG text; the same figure gives the same text.

    Args:
        figure: to write.
        numbers: that it shows, in words: its description.
    """
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "qaudio"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Description": numbers})
    return file.getvalue()


def shows(svg: str, numbers: str) -> bool:
    """Whether an SVG shows these numbers, whoever drew it."""
    return html.escape(numbers, quote=False) in svg
