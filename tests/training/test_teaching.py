"""Teaching a student by a tagger on recordings without labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
import yaml
from lightning import seed_everything
from safetensors.torch import load_file

import qaudio
from qaudio.cli import main
from qaudio.compress import importance
from qaudio.data.pool import Mixing, PoolDataset
from qaudio.data.split import Split
from qaudio.errors import EntryError
from qaudio.training import checkpoints
from tests.support.networks import FRONTEND, small_model

CLASSES = ["bark", "rain", "siren", "speech"]
RATE = FRONTEND["sample_rate"]


@pytest.fixture
def pool(tmp_path):
    rng = np.random.default_rng(0)
    for source, count in (("fields", 6), ("rooms", 4), ("kept", 12)):
        (tmp_path / "pool" / source).mkdir(parents=True)
        for n in range(count):
            sound = 0.1 * rng.standard_normal(RATE) * np.linspace(0, n + 1, RATE)
            soundfile.write(tmp_path / "pool" / source / f"{n}.wav", sound.clip(-1, 1), RATE)
    return tmp_path / "pool"


@pytest.fixture
def teacher(tmp_path):
    """An entry that tags four classes, with tags on about half of the clips."""
    net = small_model("cnn6_025", len(CLASSES), frontend=FRONTEND)
    net.labels, net.task = CLASSES, "multilabel"
    source = {"trained_on": ["AudioSet"]}
    folder = tmp_path / "zoo" / "teacher.audioset"
    return str(qaudio.save(net, folder, extra={"source.json": json.dumps(source)}))


def student(teacher, **settings):
    settings = {
        "arch": "qcnn6_006", "task": "multilabel", "loss": "bce", "alpha": 1.0,
        "embedding_weight": 0.5, "frontend": FRONTEND, "lr": 0.01,
    } | settings  # fmt: skip
    return qaudio.DistilledClassifier(teacher, **settings)


def data(root, **settings):
    settings = {"test_sources": ["kept"], "seconds": 0.5, "batch_size": 4} | settings
    return qaudio.AudioPool(str(root), **settings)


def recipe(tmp_path, pool, teacher, **model):
    model = {
        "teacher": teacher, "arch": "qcnn6_006", "task": "multilabel", "loss": "bce", "alpha": 1.0,
        "embedding_weight": 0.5, "frontend": FRONTEND, "lr": 0.01, "head_dropout": 0.3,
        "schedule": "trapezoidal",
    } | model  # fmt: skip
    config = {
        "trainer": {
            "max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [{
                "class_path": "lightning.pytorch.callbacks.EMAWeightAveraging",
                "init_args": {"decay": 0.9},
            }],
        },
        "model": {"class_path": "qaudio.DistilledClassifier", "init_args": model},
        "data": {
            "class_path": "qaudio.AudioPool",
            "init_args": {
                "root": str(pool), "test_sources": ["kept"], "seconds": 0.5, "batch_size": 4,
                "epoch_clips": 40, "mixing": {}, "augment": {"gain_db": 6.0, "speed": 0.1},
            },
        },
        "writer": {
            "entry": "qcnn6_006.audioset_kd", "folder": str(tmp_path / "zoo"), "license": "cc0-1.0",
            "latency": False,
        },
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(config))
    return ["train", "--config", str(path), "--runs", str(tmp_path / "runs")]


def test_teaching_student_learns_the_teachers_classes_without_labels(pool, teacher) -> None:
    from lightning import Trainer

    seed_everything(0, verbose=False)
    module, sounds = student(teacher, lr=0.003), data(pool, epoch_clips=64, mixing=Mixing())
    trainer = Trainer(
        max_epochs=12, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    batch = torch.cat([b["waveform"] for b in _scored(sounds)])
    expected = qaudio.load(teacher)(batch).sigmoid()
    trainer.fit(module, datamodule=sounds)
    net = module.net.eval()
    assert (net.labels, net.task) == (CLASSES, "multilabel")
    with torch.no_grad():
        found = net(batch).sigmoid()
        vectors = qaudio.load(teacher).embed(batch)
        cosine = F.cosine_similarity(module.projection(net.embed(batch)), vectors).mean()
    assert (found - expected).abs().mean() < 0.5 * (0.5 - expected).abs().mean()
    assert cosine > 0.8


@pytest.mark.parametrize("steps", [1, 2])
def test_teaching_taylor_prunes_by_what_the_teacher_says(pool, teacher, steps, monkeypatch) -> None:
    from lightning import Trainer

    source, known = small_model("qcnn6_013", len(CLASSES), frontend=FRONTEND), qaudio.load(teacher)
    source.labels, source.task = CLASSES, "multilabel"
    known_for = {"source.json": json.dumps({"trained_on": ["AudioSet"]})}
    folder = str(qaudio.save(source, Path(teacher).with_name("source.x"), extra=known_for))
    heard, real = [], importance.loss_gradients

    def spy(net, waveform, label, names):
        heard.append((waveform, label))
        return real(net, waveform, label, names)

    monkeypatch.setattr(importance, "loss_gradients", spy)
    module = student(teacher, arch=None, frontend=None, source=folder, ratio=0.5,
                     layers="conv_block1.conv1", criterion="taylor", steps=steps)  # fmt: skip
    trainer = Trainer(
        max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data(pool, epoch_clips=8))
    assert heard
    for waveform, label in heard:
        assert torch.allclose(label, known(waveform).sigmoid(), atol=1e-5)


def _scored(sounds):
    sounds.sample_rate = RATE
    sounds.setup()
    return list(sounds.test_dataloader())


def test_teaching_loss_is_the_tags_and_the_cosine_of_mapped_embeddings(pool, teacher) -> None:
    from lightning import Trainer

    module, sounds = student(teacher, alpha=0.7, embedding_weight=0.2), data(pool)
    trainer = Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=sounds)
    waveform = torch.cat([b["waveform"] for b in _scored(data(pool))])
    module.net.eval()
    with torch.no_grad():
        embedding = module.net.embed(waveform)
        loss = module.training_loss(embedding, torch.zeros(len(waveform), 0), waveform, lambda x: x)
        expert = qaudio.load(teacher)
        bce = F.binary_cross_entropy_with_logits(module.net(waveform), expert(waveform).sigmoid())
        apart = 1 - F.cosine_similarity(module.projection(embedding), expert.embed(waveform)).mean()
    torch.testing.assert_close(loss, 0.7 * bce + 0.2 * apart)


def test_teaching_entry_is_scored_against_the_teachers_tags_and_says_what_was_heard(
    pool, teacher, tmp_path, capsys
) -> None:
    assert main(recipe(tmp_path, pool, teacher)) == 0
    folder = tmp_path / "zoo" / "qcnn6_006.audioset_kd"
    results = json.loads((folder / "results.json").read_text())
    teaching = results["teaching"]
    assert teaching["teacher"] == "teacher.audioset"
    assert list(teaching["heard"]["sources"]) == ["fields", "rooms"]
    assert teaching["heard"]["held_out"] == ["kept"]
    assert -1 <= teaching["embedding_cosine"] <= 1
    assert results["trained_on"] == ["AudioSet", "sound pool"]
    assert results["result"]["metric"] == "mAP"
    assert qaudio.load(folder).labels == CLASSES
    with np.load(folder / "predictions.npz") as stored:
        clips = [soundfile.read(pool / clip, dtype="float32")[0] for clip in stored["clip"]]
        sounds = torch.from_numpy(np.stack(clips)[:, : RATE // 2])
        tags = (qaudio.load(teacher)(sounds).sigmoid() >= 0.3).numpy()
        tags &= tags.sum(0) >= 5  # rarer classes are left out
        assert tags.any() and np.array_equal(stored["label"].astype(bool), tags)
    qaudio.verify(folder)
    capsys.readouterr()
    assert main(["test", str(folder), f"--data.root={pool}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "its score is agreement with teacher.audioset on unlabelled sound" in line


def test_teaching_run_killed_within_epochs_gives_the_weights_of_the_uninterrupted_one(
    pool, teacher, tmp_path, monkeypatch
) -> None:
    """Of twenty steps, it ends after two, six and twelve."""
    arguments = recipe(tmp_path, pool, teacher)
    weights = {}
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    for name, ends in (("whole", ()), ("killed", (3, 5, 7))):
        folders = [f"--writer.folder={tmp_path / name}", f"--runs={tmp_path / name / 'runs'}"]
        for end in ends:
            count, real = 0, PoolDataset.__getitem__

            def broken(self, key, end=end, real=real):
                nonlocal count
                count += 1
                if count == 4 * end:
                    raise KeyboardInterrupt
                return real(self, key)

            with monkeypatch.context() as patch:
                patch.setattr(PoolDataset, "__getitem__", broken)
                assert main([*arguments, *folders]) != 0
        assert main([*arguments, *folders]) == 0
        weights[name] = load_file(tmp_path / name / "qcnn6_006.audioset_kd" / "model.safetensors")
    for name, tensor in weights["whole"].items():
        assert torch.equal(tensor, weights["killed"][name]), name


def test_teaching_teacher_that_names_no_classes_is_refused(pool, tmp_path, capsys) -> None:
    net = small_model("cnn6_025", 3, frontend=FRONTEND)
    source = json.dumps({"trained_on": ["ESC-50"]})
    for name, task, labels in (("a.x", "multiclass", ["x", "y", "z"]), ("b.x", "multilabel", None)):
        net.task, net.labels = task, labels
        folder = qaudio.save(net, tmp_path / "zoo" / name, extra={"source.json": source})
        capsys.readouterr()
        assert main(recipe(tmp_path, pool, str(folder))) == 1
        err = capsys.readouterr().err.strip().splitlines()
        assert f"{name}: no tagger with named classes" in err[-1]


def test_teaching_pool_without_a_teacher_is_refused(pool, tmp_path, capsys) -> None:
    arguments = recipe(tmp_path, pool, "unused")
    config = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    config["model"] = {
        "class_path": "qaudio.Classifier",
        "init_args": {"arch": "qcnn6_006", "task": "multilabel", "frontend": FRONTEND},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(config))
    assert main(arguments) == 1
    assert "sound pool has no labels to train on" in capsys.readouterr().err


def test_teaching_labels_of_a_subset_are_matched_by_name(teacher) -> None:
    distillation = student(teacher).distillation
    split, sound = Split("made", "made", "made", 1, 1, 1), 0.1 * torch.randn(2, RATE)
    assert distillation.load(["siren", "bark"], split) == ["siren", "bark"]
    with torch.no_grad():
        expected = distillation.network(sound, RATE)[:, [2, 0]]
    torch.testing.assert_close(distillation.answer(sound, RATE)[1], expected)
    with pytest.raises(EntryError, match="does not know these 2"):
        distillation.load(["siren", "cat"], split)


def test_teaching_negative_weight_of_embeddings_is_refused(teacher) -> None:
    with pytest.raises(ValueError, match="embedding_weight must be at least 0"):
        student(teacher, embedding_weight=-1.0)
