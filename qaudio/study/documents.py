"""What is generated from grids: tables in the recipes' README.md, pictures in the zoo."""

from collections.abc import Callable
from pathlib import Path

from qaudio.cards.tables import markers, with_generated
from qaudio.study import forest_plot, hours
from qaudio.study.answers import Findings
from qaudio.study.grid import FOLDER, Study

GRIDS = ("study", "prune_or_distil", "fine_tuned")  # that are shipped, in the folder of recipes


def documents(study: Study, zoo: Path) -> dict[Path, Callable[[str], str]]:
    """Files that show a grid's results, and what makes each anew of its present text."""
    findings = Findings(study, zoo)
    picture = hours if study.probes else forest_plot

    def tables(text: str) -> str:
        what = f"{study.name} tables"
        if markers(what)[0] not in text:  # a grid of one's own
            text = "\n".join([*([text] if text else []), *markers(what), ""])
        return with_generated(text, what, findings.render())

    def drawn(svg: str) -> str:
        return svg if svg and picture.follows(svg, findings) else picture.draw(findings)

    return {study.recipes / "README.md": tables, zoo / FOLDER / f"{study.name}.svg": drawn}
