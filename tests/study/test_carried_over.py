import pytest

import qaudio
from qaudio.cards.entries import add_transfer
from qaudio.errors import EntryError
from qaudio.evaluation.bootstrap import summarise
from qaudio.study.carried_over import answers
from tests.support.entries import results_of, tiny
from tests.support.predictions import answered

QUESTION = 'questions: [{ask: "Is it better?", entry: better, than: worse}]'


def carry(entry, right: int, protocol: str = "two folds; linear probe") -> None:
    found = answered(right, 60)
    add_transfer(
        entry, benchmark="made", dataset="Made", protocol=protocol,
        result=summarise(found, "accuracy"), predictions=found,
    )  # fmt: skip


@pytest.fixture
def zoo(tmp_path):
    for name, right in (("better", 50), ("worse", 30)):
        entry, own = tmp_path / "zoo" / name, answered(40, 60)
        qaudio.save(
            tiny(), entry, results=results_of(own, name), predictions=own, recipe="a recipe"
        )
        carry(entry, right)
    (tmp_path / "asked.yaml").write_text(QUESTION)
    return tmp_path / "zoo"


def test_answers_say_what_is_decided_after_correction(zoo, tmp_path):
    made = answers(tmp_path / "asked.yaml", zoo)
    assert "all 1 comparisons" in made and "Decided: 1 on made: linear probe." in made
    assert "| Is it better? | **yes**: +33.3 (" in made
    # Twenty more questions of equal entries are twenty more chances to err.
    carry(zoo / "better", 36)
    assert "**yes**" in answers(tmp_path / "asked.yaml", zoo)
    same = ', {ask: "And now?", entry: better, than: better}'
    (tmp_path / "asked.yaml").write_text(QUESTION[:-1] + 20 * same + "]")
    made = answers(tmp_path / "asked.yaml", zoo)
    assert "| Is it better? | undecided: +10.0 (" in made and "Decided: 0 on" in made


def test_answers_keep_protocols_apart_and_leave_out_what_one_lacks(zoo, tmp_path):
    carry(zoo / "better", 20, "two folds; zero-shot")
    made = answers(tmp_path / "asked.yaml", zoo)
    assert "zero-shot" not in made  # nothing of the other to compare with
    carry(zoo / "worse", 50, "two folds; zero-shot")
    made = answers(tmp_path / "asked.yaml", zoo)
    assert "| Is it better? | **yes**: +33.3 (" in made and "**no**, worse: -50.0 (" in made


def test_answers_of_entries_without_scores_are_empty_and_misspelt_ones_refused(zoo, tmp_path):
    (tmp_path / "asked.yaml").write_text(QUESTION.replace("worse", "bare"))
    with pytest.raises(EntryError, match="no such entries: bare"):
        answers(tmp_path / "asked.yaml", zoo)
    qaudio.save(tiny(), zoo / "bare")
    assert "Decided: none." in answers(tmp_path / "asked.yaml", zoo)


@pytest.mark.parametrize("text", ["questions: 3", "other: []", "questions: [{ask: Why?}]", "["])
def test_answers_refuse_what_is_no_list_of_questions(tmp_path, text):
    (tmp_path / "asked.yaml").write_text(text)
    with pytest.raises(EntryError, match="not readable as questions"):
        answers(tmp_path / "asked.yaml", tmp_path)
