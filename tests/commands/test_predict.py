import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

import qaudio
from qaudio.models.base import AudioModel
from tests.support.command import lines_of


@pytest.fixture
def predict(run, tiny_entry):
    return lambda *arguments: run("predict", "--model", tiny_entry, *arguments)


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def expected_rows(model, folder, **settings):
    """CSV rows as the library's records give them."""
    return [
        {
            "file": r.file, "start": "" if r.start is None else str(r.start),
            "end": "" if r.end is None else str(r.end), "label": r.label or "",
            "probability": "" if r.probability is None else f"{r.probability:.6g}",
            "error": r.error or "",
        }
        for r in qaudio.predict_files(model, folder, **settings)
    ]  # fmt: skip


def agree(found, expected):
    """Whether rows are the same to rounding."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert {k: v for k, v in one.items() if k != "probability"} == {
            k: v for k, v in other.items() if k != "probability"
        }
        if one["probability"]:
            assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=1e-4)


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ([], {}),
        (["--top-k", 1], {"top_k": 1}),
        (["--threshold", 0.34], {"threshold": 0.34}),
        (["--window", 0.5], {"window": 0.5}),
        (
            ["--window", 0.25, "--merge", "--threshold", 0.34, "--low-threshold", 0.3,
             "--min-duration", 0.3],
            {"window": 0.25, "merge": True, "threshold": 0.34, "low_threshold": 0.3,
             "min_duration": 0.3},
        ),
    ],
    ids=["whole", "top", "threshold", "windows", "events"],
)  # fmt: skip
def test_predict_csv_is_what_the_library_says(
    predict, folder, tiny_model, tmp_path, options, settings
):
    expected = expected_rows(tiny_model, folder, **settings)
    assert expected
    printed = predict(folder, "--csv", *options)
    assert printed.code == 1
    assert printed.err.startswith(f"qaudio: {folder / 'bad.wav'}: not a readable")
    agree(rows_of(printed.out), expected)
    out = tmp_path / "found.csv"
    written = predict(folder, *options, "--csv", out, "--jobs", 2)
    assert written.code == 1
    assert written.out.startswith(f"{out}: 7 files, ")
    agree(rows_of(out.read_text(encoding="utf-8")), expected)


def test_predict_goes_on_after_a_kill(predict, killed, folder, tiny_entry, tmp_path, reads):
    predict(folder, "--csv", tmp_path / "whole.csv")
    out = tmp_path / "found.csv"
    killed(4, "predict", "--model", tiny_entry, folder, "--csv", out)
    assert not out.exists()
    reads.clear()
    result = predict(folder, "--csv", out, "--resume")
    assert f"{out}: 7 files (4 of them before), 6 windows, 1 failed; " in result.out
    assert reads == ["4.wav", "5.wav", "bad.wav"]
    agree(
        rows_of(out.read_text(encoding="utf-8")),
        rows_of((tmp_path / "whole.csv").read_text(encoding="utf-8")),
    )
    assert not (tmp_path / "found.csv.partial").exists()


def test_predict_fails_as_before_where_a_file_failed_before_the_kill(
    predict, killed, folder, tiny_entry, tmp_path
):
    (folder / "bad.wav").rename(folder / "0bad.wav")
    out = tmp_path / "found.csv"
    killed(4, "predict", "--model", tiny_entry, folder, "--csv", out)
    assert predict(folder, "--csv", out, "--resume").code == 1


@pytest.mark.parametrize("kind", ["audacity", "raven"])
def test_predict_writes_a_label_file_for_each_sound(
    predict, folder, write_sound, tiny_model, tmp_path, kind
):
    write_sound("sounds/deeper/0.wav", seconds=2)
    out = tmp_path / "a" / "labels"
    result = predict(
        folder, "--format", kind, "--out", out, "--window", 0.5, "--merge", "--threshold", 0.34
    )
    assert result.code == 1
    assert result.out.startswith(f"{out}: 8 files, ")
    suffix = {"audacity": ".labels.txt", "raven": ".selections.txt"}[kind]
    names = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert names == sorted(f"{name}.wav{suffix}" for name in ["deeper/0", *map(str, range(6))])
    records = list(
        qaudio.predict_files(
            tiny_model, folder / "deeper" / "0.wav", window=0.5, merge=True, threshold=0.34
        )
    )
    text = (out / f"deeper/0.wav{suffix}").read_text().splitlines()
    assert records
    if kind == "audacity":
        assert [line.split("\t")[:2] for line in text] == [
            [f"{r.start:.3f}", f"{r.end:.3f}"] for r in records
        ]
    else:
        assert [line.split("\t")[7] for line in text[1:]] == [r.label for r in records]
        assert text[1].split("\t")[6] == "8000.0"  # half of the network's rate


def test_predict_runs_on_the_device_that_is_asked_for(
    predict, run, write_sound, tiny_entry, tiny_export, tmp_path, monkeypatch
):
    sound, asked = write_sound("a.wav"), []
    monkeypatch.setattr(AudioModel, "to", lambda model, device: asked.append(device) or model)
    assert predict(sound, "--device", "cuda:1").code == 0
    out = tmp_path / "vectors.npz"
    assert run("embed", sound, "--model", tiny_entry, "--device", "mps", "--out", out).code == 0
    assert asked == ["cuda:1", "mps"]
    monkeypatch.undo()
    for arguments in (["--device", "toaster"], ["--device", "cuda:99"]):
        result = predict(sound, *arguments)
        assert result.code == 2 and len(lines_of(result)) == 1
        assert lines_of(result)[0].startswith(f"qaudio: --device {arguments[1]}: ")
    result = run("predict", sound, "--model", tiny_export, "--device", "cuda")
    assert result.code == 2 and "an exported file runs on the CPU" in result.err


def test_predict_label_files_go_on_after_a_kill(
    predict, killed, folder, tiny_entry, tmp_path, reads
):
    out = tmp_path / "labels"
    killed(2, "predict", "--model", tiny_entry, folder, "--format", "raven", "--out", out)
    other = predict(folder, "--format", "audacity", "--out", out, "--resume")
    assert "format of the unfinished run was raven, not audacity" in other.err
    result = predict(folder, "--format", "raven", "--out", out, "--resume")
    assert "(2 of them before)" in result.out
    assert reads == ["2.wav", "3.wav", "4.wav", "5.wav", "bad.wav"]
    assert len(list(out.iterdir())) == 6


def test_predict_labels_are_above_one_half_unless_asked_otherwise(predict, write_sound, tmp_path):
    path = write_sound("one.wav")
    options = ["--format", "audacity", "--out", tmp_path]
    predict(path, *options, "--top-k", 3)
    shares = [float(line.split()[-1]) for line in
              (tmp_path / "one.wav.labels.txt").read_text().splitlines()]  # fmt: skip
    assert len(shares) == 3
    predict(path, *options)
    lines = (tmp_path / "one.wav.labels.txt").read_text().splitlines()
    assert len(lines) == sum(share > 0.5 for share in shares)


def test_predict_threshold_and_merge_are_shown(predict, write_sound, tiny_model):
    path = write_sound("one.wav", seconds=2)
    top = qaudio.predict(tiny_model, path)
    level = (top[0].probability + top[1].probability) / 2
    result = predict(path, "--threshold", level)
    assert result.out.splitlines()[1:] == [f"  {top[0].probability:6.1%}  {top[0].label}"]
    document = json.loads(predict(path, "--merge", "--threshold", 0.3, "--window", 1, "--json").out)
    events = qaudio.predict_files(tiny_model, path, merge=True, threshold=0.3, window=1)
    assert document["events"] == [
        {key: vars(r)[key] for key in ("label", "index", "probability", "start", "end")}
        for r in events
    ]
    assert "times" not in document


def test_predict_of_several_files_ends_with_a_summary(predict, folder):
    result = predict(folder)
    assert result.out.splitlines()[-1].startswith("7 files, 6 windows, 1 failed; ")
    assert "windows" not in predict(folder / "0.wav").out
    assert all(json.loads(line) for line in predict(folder, "--json").out.splitlines())


def test_predict_takes_patterns(predict, folder):
    result = predict(folder / "[0-2].wav", "--csv", "--top-k", 1)
    assert result.code == 0
    assert [os.path.basename(row["file"]) for row in rows_of(result.out)] == [
        "0.wav", "1.wav", "2.wav",
    ]  # fmt: skip
    nothing = predict(folder / "*.flac")
    assert (nothing.code, nothing.out) == (1, "")
    assert nothing.err == f"qaudio: {folder / '*.flac'}: matches no sound files\n"


def test_predict_never_takes_a_sound_for_its_output(predict, folder):
    before = (folder / "0.wav").read_bytes()
    result = predict("--csv", folder / "0.wav", folder / "1.wav")
    assert result.code == 2
    assert "--csv takes a file that ends in .csv, not " in result.err
    assert (folder / "0.wav").read_bytes() == before


def test_predict_names_outputs_that_cannot_be_written(predict, folder, tmp_path):
    result = predict(folder, "--csv", tmp_path / "none" / "a.csv")
    assert result.err == (
        f"qaudio: {tmp_path / 'none' / 'a.csv'} cannot be written: No such file or directory\n"
    )
    (tmp_path / "file").write_text("")
    result = predict(folder, "--format", "raven", "--out", tmp_path / "file" / "labels")
    assert result.code == 1
    assert result.err.startswith(f"qaudio: {tmp_path / 'file' / 'labels'} cannot be made: ")


def test_predict_runs_an_export_with_all_of_it(run, tiny_export, folder, tmp_path):
    result = run("predict", "--model", tiny_export, folder, "--csv", tmp_path / "a.csv",
                 "--merge", "--jobs", 2)  # fmt: skip
    assert result.out.startswith(f"{tmp_path / 'a.csv'}: 7 files, 6 windows, 1 failed; ")


def test_predict_names_file_entry_and_classes(predict, write_sound):
    path = write_sound("sound.wav")
    result = predict(path)
    assert (result.code, result.err) == (0, "")
    head, *rows = result.out.splitlines()
    assert head == f"{path}  (tiny.made)"
    assert {row.split("%")[1].strip() for row in rows} == {"dog", "rain", "clock_tick"}
    shares = [float(row.split("%")[0]) for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_predict_json_is_what_the_library_says(predict, write_sound, tiny_model):
    one, two = write_sound("one.wav", seed=1), write_sound("two.wav", seconds=4, seed=2)
    result = predict(one, two, "--json", "--top-k", 2, "--times", "--window", 2)
    assert (result.code, result.err) == (0, "")
    documents = [json.loads(line) for line in result.out.splitlines()]
    assert [document["file"] for document in documents] == [str(one), str(two)]
    for path, document in zip((one, two), documents, strict=True):
        rows = qaudio.predict(tiny_model, path, top_k=2, window=2)
        assert document["times"] == [vars(row) for row in rows]
        assert len(document["predictions"]) == 2
    assert documents[0]["predictions"] == [
        vars(p) for p in qaudio.predict(tiny_model, one, top_k=2)
    ]
    assert [row["start"] for row in documents[1]["times"][::2]] == [0, 1, 2]


def test_predict_times(predict, write_sound):
    path = write_sound("sound.wav", seconds=4)
    result = predict(path, "--times", "--window", 2, "--hop", 2, "--top-k", 1)
    title, *rows = result.out.splitlines()[2:]
    assert title.split() == ["start", "end", "label"]
    assert [row.split()[:2] for row in rows] == [["0.00", "2.00"], ["2.00", "4.00"]]
    assert len(predict(path, "--top-k", 1).out.splitlines()) == 2


def test_each_unusable_file_has_a_line_and_the_others_an_answer(predict, write_sound, bad_sounds):
    good = [
        write_sound("eight.wav", channels=8),
        write_sound("slow.wav", rate=8000),
        write_sound("fast.wav", rate=192000, seconds=0.5),
        write_sound("short.wav", seconds=0.001),
    ]
    mixed = [good[0], *bad_sounds.values(), *good[1:]]
    result = predict(*mixed, "--json")
    assert result.code == 1
    assert [json.loads(line)["file"] for line in result.out.splitlines()] == list(map(str, good))
    *lines, count = lines_of(result)
    assert count == f"qaudio: {len(bad_sounds)} of {len(mixed)} files could not be used"
    for (fault, path), line in zip(bad_sounds.items(), lines, strict=True):
        assert line.startswith(f"qaudio: {path}: ")
        assert fault in line


def test_a_single_unusable_file(predict, bad_sounds):
    for fault, path in bad_sounds.items():
        result = predict(path)
        assert (result.code, result.out) == (1, "")
        (line,) = lines_of(result)
        assert fault in line


def test_a_file_of_nothing_but_infinities_is_one_line(predict, write_sound):
    samples = np.tile([[np.inf, -np.inf]], (100, 1))
    result = predict(write_sound("inf.wav", samples=samples, subtype="FLOAT"))
    assert result.code == 1
    (line,) = lines_of(result)
    assert "NaN or infinite" in line


def test_ten_minutes_of_sound(predict, write_sound):
    result = predict(write_sound("long.wav", seconds=600), "--json", "--times", "--top-k", 1)
    assert result.code == 0
    document = json.loads(result.out)
    assert [row["start"] for row in document["times"]] == [5.0 * n for n in range(119)]
    assert document["times"][-1]["end"] == document["predictions"][0]["end"] == 600


def test_a_folder_of_two_hundred_with_one_bad(predict, tmp_path):
    folder, rng = tmp_path / "sounds", np.random.default_rng(0)
    (folder / "deeper").mkdir(parents=True)
    for n in range(199):
        name = f"deeper/{n:03}.WAV" if n % 2 else f"{n:03}.flac"
        soundfile.write(folder / name, 0.1 * rng.standard_normal(800), 8000)
    (folder / "bad.wav").write_text("not a sound")
    (folder / "notes.txt").write_text("no sound, and none by its name")
    result = predict(folder, "--json")
    assert result.code == 1
    assert len({json.loads(line)["file"] for line in result.out.splitlines()}) == 199
    (line,) = lines_of(result)
    assert f"{folder / 'bad.wav'}: not a readable sound file" in line


def test_a_folder_without_sounds_is_one_line(predict, tmp_path):
    (tmp_path / "none").mkdir()
    result = predict(tmp_path / "none")
    assert result.code == 1
    (line,) = lines_of(result)
    assert "without sound files" in line


def test_predict_names_the_sounds_of_a_folder_that_it_does_not_read(predict, tmp_path, write_sound):
    write_sound("mix/a.wav")
    write_sound("mix/b.aifc", format="AIFF")
    (tmp_path / "mix" / "c.m4a").write_bytes(b"....ftypM4A ")
    done = predict(tmp_path / "mix")
    assert done.code == 1
    assert "a.wav" in done.out and "b.aifc" in done.out
    assert "c.m4a: not a format that is read; convert it" in done.err
    assert "3 files, 2 windows, 1 failed; " in done.out


@pytest.mark.parametrize("form", [[], ["--json"], ["--csv"], ["--csv", "a.csv"]])
def test_predict_counts_the_files_of_a_folder_that_it_could_not_read(
    predict, tmp_path, write_sound, monkeypatch, form
):
    monkeypatch.chdir(tmp_path)
    write_sound("mix/a.wav")
    (tmp_path / "mix" / "b.wav").write_text("no sound")
    for name in ("c.m4a", "d.aac", "e.webm"):
        (tmp_path / "mix" / name).write_bytes(b"....ftypM4A ")
    done = predict("mix", *form)
    told = lines_of(done)
    assert done.code == 1
    assert f"{Path('mix', 'c.m4a')} and 2 more files: not a format that is read" in told[0]
    if form in ([], ["--csv", "a.csv"]):
        assert "5 files, 1 windows, 4 failed; " in done.out and len(told) == 2
    else:
        assert told[2:] == ["qaudio: 4 of 5 files could not be used"]


def test_demo_makes_its_own_sound(predict, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = predict("--demo")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("qaudio-demo.wav  (tiny.made)")
    assert soundfile.info(tmp_path / "qaudio-demo.wav").duration == 5
