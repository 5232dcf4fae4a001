import pytest

from qaudio.cards import overview
from qaudio.compress.measured import Latency
from qaudio.quaternion.algebra import real_matrix
from tests.support.entries import results_of, write_records
from tests.support.predictions import made


@pytest.fixture
def folder(tmp_path):
    for name, arch, score, time in (
        ("qcnn10_050.esc10_pruned50", "qcnn10_050", 0.91, 3.9),
        ("cnn10_050.esc10", "cnn10_050", 0.852, 11.1),
    ):
        results = results_of(made(), name)
        results |= {"benchmark": "esc10", "protocol": "five folds"}
        results["result"]["mean"] = score
        results["cost"]["latency"] = Latency(20.0, 2.0, "a chip", "made", time).to_dict()
        write_records(tmp_path / name, results, architecture=arch)
    return tmp_path


def test_overview_shows_every_entry_at_its_score_and_time(folder) -> None:
    text = overview.draw(folder)
    assert "qcnn10_050 pruned50: 3.9 ms, 91.0 %; cnn10_050: 11.1 ms, 85.2 %" in text
    assert overview.follows(text, folder)


def test_overview_of_other_results_does_not_follow(folder) -> None:
    text = overview.draw(folder)
    path = folder / "cnn10_050.esc10" / "results.json"
    path.write_text(path.read_text().replace("0.852", "0.862"))
    assert not overview.follows(text, folder)


def test_overview_shares_weights_as_the_layers_do() -> None:
    import torch

    parts = {"r": 1.0, "i": 2.0, "j": 3.0, "k": 4.0}
    matrix = real_matrix(torch.tensor(list(parts.values()))[:, None])
    drawn = [[(-1 if "−" in block else 1) * parts[block[-1]] for block in row]
             for row in overview.HAMILTON]  # fmt: skip
    assert matrix.tolist() == drawn
