import pytest

from qaudio.cli import main
from qaudio.text import cut, is_text


@pytest.mark.parametrize(
    ("text", "right"), [("été 🎵\n", True), ("", True), ("a\0", False), ("\udcff", False)]
)
def test_text_is_what_utf8_and_paths_can_hold(text, right):
    assert is_text(text) == right


def test_text_that_is_cut_keeps_both_ends():
    assert cut("x" * 20, 20) == "x" * 20
    short = cut("a" * 500 + "b" * 500, 21)
    assert len(short) <= 21 and short.startswith("aaaa") and short.endswith("bbbb")


@pytest.mark.parametrize(
    "words", [["predict", "@"], ["pull", "@"], ["predict", "a.wav", "--csv", "@"]], ids=" ".join
)
def test_text_of_any_length_is_refused_in_one_line_of_little(words, capsys):
    assert main([word.replace("@", "x" * 5000) for word in words]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 1200
