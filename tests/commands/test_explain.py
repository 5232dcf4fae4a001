import json

import pytest
from PIL import Image


@pytest.fixture
def explained(run, tiny_entry):
    return lambda *arguments: run("explain", "--model", tiny_entry, *arguments)


def test_explain_writes_a_picture(explained, write_sound, tmp_path):
    sound, out = write_sound("a.wav", seconds=2), tmp_path / "why.png"
    done = explained(sound, "--out", out)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == f"{sound}  (tiny.made)"
    assert lines[-1] == f"{out}: written"
    assert Image.open(out).size == (1100, 836)


@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_explain_writes_other_kinds(explained, write_sound, tmp_path, kind):
    out = tmp_path / f"why.{kind}"
    assert explained(write_sound("a.wav"), "--out", out).code == 0
    assert out.read_bytes()[:5] in (b"<?xml", b"%PDF-")


def test_explain_prints_json(explained, write_sound, tmp_path):
    sound, out = write_sound("a.wav", seconds=2), tmp_path / "why.png"
    done = explained(sound, "--label", "clock tick", "--out", out, "--json")
    document = json.loads(done.out)
    assert document["explained"]["label"] == "clock_tick"
    assert document["picture"] == str(out)
    assert len(document["predictions"]) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--out", "why.txt"], 2, "--out must end in .png, .svg or .pdf, not why.txt"),
        (["--out", "why.png", "--seconds", "601"], 2, "--seconds must be above 0 and at most 600"),
        (["--out", "why.png", "--start", "-1"], 2, "--start must be 0 seconds or more"),
        (["--out", "why.png", "--window", "0"], 2, "--window must be"),
        (["--out", "why.png", "--model", "x.onnx"], 2, "give an entry"),
        (["--out", "why.png", "--start", "9"], 1, "ends at 1 s, before 9"),
        (["--out", "why.png", "--label", "dogs"], 1, "no class 'dogs'; similar: 'dog'"),
        (["--out", "no/such/why.png"], 1, "cannot be written"),
    ],
)
def test_explain_refuses_in_one_line(
    explained, write_sound, tmp_path, monkeypatch, arguments, code, message
):
    monkeypatch.chdir(tmp_path)
    done = explained(write_sound("a.wav"), *arguments)
    assert done.code == code
    assert message in done.err
    assert done.err.count("\n") == 1


def test_explain_of_a_file_that_is_no_sound(explained, bad_sounds, tmp_path):
    done = explained(bad_sounds["not a readable sound file"], "--out", tmp_path / "why.png")
    assert done.code == 1
    assert "not a readable sound file" in done.err
    assert not (tmp_path / "why.png").exists()
