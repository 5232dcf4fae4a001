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
    from matplotlib.figure import Figure

KEY = "Description"  # a PNG's own name for such text


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
