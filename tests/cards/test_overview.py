import json
from itertools import combinations

import pytest

from qaudio.cards import overview
from qaudio.cards.choice import FILE, PROBE
from qaudio.quaternion.algebra import real_matrix
from qaudio.zoo.store import zoo_folder


def member(name, family, score, **times):
    return {
        "network": name,
        "family": family,
        "scores": {PROBE: {"mean": score, "interval95": [score, score]}} if score else {},
        "runtimes": [
            {
                "runtime": runtime, "milliseconds": {"1": 2 * ms, "2": ms, "10": ms + 1},
                "processor_milliseconds": {}, "import_milliseconds": 1, "cold_milliseconds": 1,
                "peak_megabytes": 1, "bytes": 1,
            }
            for runtime, ms in times.items()
        ],
    }  # fmt: skip


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "choice.json"
    made = [
        member("qcnn10_050.audioset_kd_long", "quaternion", 0.955, PyTorch=30, optimize=13.5),
        member("cnn10_025.audioset_kd", "real", 0.941, PyTorch=20, **{"ONNX fp32": 15}),
        member("mn04.audioset", "peer", 0.985, PyTorch=32, **{"ONNX int8": 9}),
        member("mn10, random weights", "peer", None, PyTorch=50),
    ]
    path.write_text(json.dumps({"an older one": made[:1], "a chip, torch 2": made}))
    return path


def test_overview_shows_scored_networks_in_their_fastest_runtime(file) -> None:
    text = overview.draw(file)
    assert (
        "a chip, torch 2; qcnn10_050 long (optimize): 14.5 ms, 95.5 %; cnn10_025 (ONNX fp32): "
        "16.0 ms, 94.1 %; mn04 (PyTorch): 33.0 ms, 98.5 %" in text
    )
    assert overview.follows(text, file)
    for drawn in ("qcnn10_050 long", "cnn10_025", "mn04", "quaternion", "real"):
        assert f">{drawn}</text>" in text


def test_overview_of_other_figures_does_not_follow(file) -> None:
    text = overview.draw(file)
    file.write_text(file.read_text().replace("0.941", "0.951"))
    assert not overview.follows(text, file)


def test_overview_names_points_apart_from_one_another_and_from_marks(tmp_path, monkeypatch) -> None:
    drawn = []
    monkeypatch.setattr(overview, "to_svg", lambda figure, numbers: drawn.append(figure))
    path = tmp_path / "choice.json"
    near = [
        member(f"qcnn10_050.audioset_kd_{n}", "real", 0.9 + n % 2 / 100, PyTorch=10 + n / 4)
        for n in range(6)
    ]
    path.write_text(json.dumps({"a chip": near}))
    overview.draw(path)
    ax = drawn[0].axes[1]
    names = [text for text in ax.texts if text.get_text()]
    boxes = [text.get_window_extent() for text in names]
    assert len(boxes) == len(near)
    assert not [pair for pair in combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    marks = [ax.transData.transform(overview._place(one)) for one in overview._points(path)[1]]
    assert not [box for box in boxes for mark in marks if box.contains(*mark)]
    assert all(ax.bbox.x0 < box.x0 and box.x1 < ax.bbox.x1 for box in boxes)


def test_overview_without_records_shows_the_layer_alone(tmp_path) -> None:
    text = overview.draw(tmp_path / "none.json")
    assert "16 blocks" in text and PROBE not in text
    assert overview.follows(text, tmp_path / "none.json")


def test_overview_draws_a_front_of_what_nothing_faster_reaches(file) -> None:
    front = overview._front(overview._points(file)[1])
    assert front == [(14.5, 95.5), (33.0, 98.5)]


def test_overview_is_of_the_clones_records() -> None:
    drawn = (zoo_folder().parent / overview.FILE).read_text()
    assert (zoo_folder().parent / FILE).is_file()
    assert PROBE in drawn and overview.follows(drawn)


def test_overview_shares_weights_as_the_layers_do() -> None:
    import torch

    parts = {"r": 1.0, "i": 2.0, "j": 3.0, "k": 4.0}
    matrix = real_matrix(torch.tensor(list(parts.values()))[:, None])
    drawn = [[(-1 if "−" in block else 1) * parts[block[-1]] for block in row]
             for row in overview.HAMILTON]  # fmt: skip
    assert matrix.tolist() == drawn
