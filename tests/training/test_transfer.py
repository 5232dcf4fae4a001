import json

import numpy as np
import pytest
import torch

import qaudio
from qaudio.cards.entries import renew_card
from qaudio.cli import main
from qaudio.data.benchmarks.audioset_names import ESC50
from qaudio.errors import DataError
from qaudio.evaluation.predictions import Predictions
from qaudio.training.transfer import ZERO_SHOT, embed_clips, transfer
from tests.support.entries import rehash
from tests.support.networks import FRONTEND, small_model
from tests.support.training import data


@pytest.fixture
def tagger():
    net = small_model("cnn6_025", 5, frontend=FRONTEND)
    net.labels = ["Bark", "Rain", "Music", "Tick", "Speech"]
    net.task = "multilabel"
    return net


def test_transfer_probe_is_fitted_on_the_other_folds(tagger, esc50_tree, monkeypatch) -> None:
    from qaudio.training import transfer as module

    seen = []

    def probe(train, label, test, classes):
        seen.append((len(train), len(test)))
        assert not {row.tobytes() for row in train} & {row.tobytes() for row in test}
        return np.zeros((len(test), classes))

    monkeypatch.setattr(module, "linear_probe", probe)
    found = transfer(tagger, data(esc50_tree))
    total = len(found.predictions.clip)
    assert len(seen) == 5 and all(sum(pair) == total for pair in seen)
    assert found.protocol == "ESC-50 official 5 folds; linear probe"


def test_transfer_clips_are_embedded_as_the_model_does(tagger, esc50_tree) -> None:
    sounds = data(esc50_tree)
    found = embed_clips(tagger, sounds)
    assert len(set(found.clip)) == len(found.clip) and set(found.fold) == {1, 2, 3, 4, 5}
    sounds.fold = 2
    batch = next(iter(sounds.test_dataloader()))
    rows = [found.clip.index(clip) for clip in batch["id"]]
    with torch.no_grad():
        vectors, logits = tagger.embed(batch["waveform"]), tagger(batch["waveform"])
    np.testing.assert_allclose(found.vectors[rows], vectors.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.logits[rows], logits.numpy(), rtol=1e-4, atol=1e-5)
    assert (found.label[rows] == batch["label"].numpy()).all() and (found.fold[rows] == 2).all()


def test_transfer_zero_shot_takes_the_taggers_own_classes(tagger, esc50_tree) -> None:
    sounds = data(esc50_tree)
    found = transfer(tagger, sounds, ZERO_SHOT)
    embedded = embed_clips(tagger, data(esc50_tree))
    columns = [[tagger.labels.index(n) for n in ESC50[label] if n in tagger.labels]
               for label in sounds.labels]  # fmt: skip
    expected = np.stack([embedded.logits[:, own].max(1) for own in columns], 1).argmax(1)
    accuracy = np.mean([
        (expected == embedded.label)[embedded.fold == fold].mean() for fold in range(1, 6)
    ])  # fmt: skip
    assert found.result.mean == pytest.approx(accuracy, abs=1e-6)


def test_transfer_zero_shot_needs_a_tagger_and_a_label_map(tagger, esc50_tree) -> None:
    tagger.task = "multiclass"
    with pytest.raises(DataError, match="need a tagger"):
        transfer(tagger, data(esc50_tree), ZERO_SHOT)
    tagger.task, tagger.labels = "multilabel", ["Bark", "Music", "Rain", "Hum", "Speech"]
    with pytest.raises(DataError, match="no class of the tagger means 'clock_tick'"):
        transfer(tagger, data(esc50_tree), ZERO_SHOT)


def test_transfer_probe_command_prints_a_score_and_writes_it_into_the_entry(
    recipe, tmp_path, capsys
) -> None:
    arguments = recipe()
    assert main(["train", *arguments]) == 0
    folder, config = tmp_path / "zoo" / "qcnn6_006.esc10", arguments[1]
    assert main(["probe", str(folder), "--config", config]) == 1
    assert "was trained on ESC-50" in capsys.readouterr().err
    path = folder / "results.json"  # as if it had been trained on others
    path.write_text(path.read_text().replace('"ESC-50"', '"other sounds"'))
    rehash(folder, path.name)
    renew_card(folder)
    before = json.loads(path.read_text())
    assert main(["probe", str(folder), "--config", config, "--write", "--json"]) == 0
    score = json.loads(capsys.readouterr().out)
    results = json.loads((folder / "results.json").read_text())
    (kept,) = results.pop("transfer")
    assert kept | {"predictions": None} == score | {"predictions": None}
    assert results == before
    assert "## Carried over" in (folder / "README.md").read_text()
    qaudio.verify(folder)
    # A second time it takes the place of the first.
    assert main(["probe", str(folder), "--config", config, "--write"]) == 0
    assert len(json.loads((folder / "results.json").read_text())["transfer"]) == 1
    stored = folder / kept["predictions"]
    wrong = Predictions.load(stored)
    wrong.logits[:] = wrong.logits[:, ::-1]
    wrong.save(stored)
    with pytest.raises(qaudio.errors.EntryError, match=r"\.npz was changed"):
        qaudio.verify(folder)


def test_transfer_probe_command_tells_what_it_does_not_take(recipe, tmp_path, capsys) -> None:
    config = recipe()[1]
    assert main(["probe", "x", "--config", config, "--model.lr", "1"]) == 2
    assert "unknown option --model.lr" in capsys.readouterr().err
    for more, said in (
        (["--data.nonsense=1"], "nonsense"),
        (["--config", "none.yaml"], "none"),
        (["--data.batch_size=null"], "data.batch_size is null"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            assert main(["probe", "qcnn10_050.esc10", "--config", config, *more]) == 1
        assert said in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["list", "--nonsense"])
    assert "unrecognized arguments: --nonsense" in capsys.readouterr().err
