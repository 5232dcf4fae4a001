import dataclasses
import functools
import re
from pathlib import Path

import numpy as np
import pytest

import qaudio
from qaudio.data.benchmarks.registry import about, register_benchmark
from qaudio.evaluation.bootstrap import paired_difference
from qaudio.evaluation.predictions import Predictions
from qaudio.study.answers import Findings
from qaudio.study.documents import GRIDS, documents
from qaudio.study.grid import Question, Study, study_entries
from tests.support.entries import results_of, tiny
from tests.support.predictions import answered

ROOT = Path(__file__).resolve().parents[2]


def tables_of(study, zoo) -> str:
    return Findings(study, zoo).render()


def test_tables_follow_from_results_and_predictions(study, zoo):
    made = tables_of(study, zoo)
    assert made.startswith("### made\n\n**All**\n")
    rows = {
        row.split("`")[1]: row.split(" | ") for row in made.splitlines() if row.startswith("| `")
    }
    assert rows["later"][1] == "not run"
    assert rows["whole"][1].startswith("55.6 %")
    assert rows["small"][1].startswith("88.9 %")
    low, high = paired_difference(answered(8), answered(5)).interval95
    expected = f"+33.3 ({100 * low:+.1f} to {100 * high:+.1f}) to `whole` |"
    assert rows["small"][-1] == expected
    assert ("Undecided" in made) == (low <= 0 <= high)


def test_questions_are_answered_as_far_as_the_intervals_tell(study, zoo):
    assert "Answers" not in tables_of(study, zoo)
    ways = [("small", "whole"), ("whole", "small"), ("later", "whole")]
    study.questions += [Question(f"Is {one} better?", one, other) for one, other in ways]
    for right, forth, back in (
        (9, "**yes**: +44.4 (+", "**no**, it is worse: -44.4 (-"),
        (6, "undecided: +11.1 (+0.0", "undecided: -11.1 (-"),
    ):
        answered(right).save(zoo / "study" / "made" / "small" / "predictions.npz")
        made = tables_of(study, zoo)
        assert made.startswith("### Answers\n") and "\n| | made |\n|---|---|\n" in made
        assert "<summary>made: every cell</summary>" in made and made.endswith("</details>")
        assert f"| Is small better? | {forth}" in made
        assert f"| Is whole better? | {back}" in made
        assert "| Is later better? | not run |" in made


def test_answers_that_change_where_groups_are_drawn_are_named(study, zoo, registries):
    study.questions.append(Question("Is small better?", "small", "whole"))
    study.questions.append(Question("Is later better?", "later", "whole"))
    answered(9).save(zoo / "study" / "made" / "small" / "predictions.npz")
    assert "drawn in place" not in tables_of(study, zoo)
    facts = {"title": "made", "sharing": "rooms"}
    for shared, line in (
        (".", "made, its 9 rooms drawn in place of clips: all answers stay.\n"),
        # All clips that differ are of one room, which a draw may lack.
        ("[0-4]|^", "made, its 6 rooms drawn in place of clips: `small` against `whole` is "
         "undecided: +44.4 (+0.0 to "),
    ):  # fmt: skip
        register_benchmark(made=facts | {"shared": shared})(type("Made", (), {}))
        assert line in tables_of(study, zoo)


def test_what_clips_share_is_read_from_the_ids_of_real_ones():
    for benchmark, groups in (("ravdess", 24), ("esc10", 304)):  # as their authors have them
        clips = Predictions.load(ROOT / "zoo" / f"qcnn10_050.{benchmark}" / "predictions.npz").clip
        found = {re.search(about(benchmark).shared, clip)[0] for clip in clips}
        assert len(found) == groups


def test_what_is_undecided_is_said(study, zoo):
    cell = zoo / "study" / "made" / "small"
    found = answered(6)
    qaudio.save(
        tiny(), cell, results=results_of(found), predictions=found, recipe="", weights=False
    )
    assert "Undecided at 95 %: `small` against `whole`." in tables_of(study, zoo)


def test_targets_are_said_to_be_met_or_missed(study, zoo):
    for least, said in ((0, "met"), (33.3, "met"), (33.4, "missed"), (90, "missed")):
        study.cells["small"].targets["whole"] = least
        low, high = paired_difference(answered(8), answered(5)).interval95
        sure = "" if low >= least / 100 or high < least / 100 else ", undecided at 95 %"
        line = f"Targets: `small` at least {least:+.1f} points to `whole`: {said}{sure}.\n"
        assert line in tables_of(study, zoo) + "\n"


def test_a_difference_over_fewer_runs_than_the_score_says_so(study, zoo):
    assert "of its runs" not in tables_of(study, zoo)
    found = answered(8).merged(dataclasses.replace(answered(7), fold=np.full(9, 2)))
    cell = zoo / "study" / "made" / "small"
    qaudio.save(
        tiny(), cell, results=results_of(found), predictions=found, recipe="", weights=False
    )
    assert "to `whole` over 1 of its runs |" in tables_of(study, zoo)


def test_cells_of_other_seeds_are_compared_and_of_other_folds_are_not(study, zoo):
    cell, pair_of = zoo / "study" / "made" / "small", ("small", "whole", "made")
    for change, mean in (({"seed": 1}, 1 / 3), ({"fold": 2}, None)):
        found = dataclasses.replace(answered(8), **{k: np.full(9, v) for k, v in change.items()})
        found.save(cell / "predictions.npz")
        pair = Findings(study, zoo).difference(*pair_of)
        assert (pair and round(pair.mean, 4)) == (mean and round(mean, 4))


def test_a_score_over_several_seeds_says_how_far_they_lie_apart(study, zoo):
    runs = [
        dataclasses.replace(
            answered(right), seed=np.full(9, seed), fold=np.full(9, fold),
            clip=np.array([str(n) * fold for n in range(9)]),
        )
        for seed, fold, right in ((0, 1, 6), (0, 2, 7), (1, 1, 8), (1, 2, 9), (2, 1, 8), (2, 2, 6))
    ]  # fmt: skip
    cell, said = zoo / "study" / "made" / "small", {}
    for count in (5, 6):  # the last seed's second fold is missing, or not
        found = functools.reduce(Predictions.merged, runs[:count])
        results = results_of(found)
        qaudio.save(tiny(), cell, results=results, predictions=found, recipe="", weights=False)
        said[count] = tables_of(study, zoo)
    assert ", 3 seeds" in said[5] and "seeds from" not in said[5]
    assert "81.5 % ± 0.0, 3 seeds from 72.2 to 94.4 |" in said[6]


@pytest.mark.parametrize("grid", GRIDS)
def test_the_shipped_documents_follow_from_the_shipped_results(grid):
    made = documents(Study(ROOT / "recipes" / f"{grid}.yaml"), ROOT / "zoo")
    assert len(made) == 2
    for path, made_of in made.items():
        text = path.read_text(encoding="utf-8")
        assert made_of(text) == text


def test_the_shipped_cells_verify():
    for cell in study_entries():
        qaudio.verify(cell)
