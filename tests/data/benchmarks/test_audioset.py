import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from qaudio.data.benchmarks.audioset import AudioSet
from qaudio.data.split import TEST, TRAINING, VALIDATION
from qaudio.errors import DataError
from qaudio.training.transfer import ZERO_SHOT, transfer
from tests.support.networks import FRONTEND, small_model

REAL = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "AudioSet"
CLASSES = [
    ("/m/09x0r", "Speech"),
    ("/m/05zppz", "Male speech, man speaking"),
    ("/m/0jbk", "Animal"),
]
TRAIN = [(f"train{n:06}", "30.000", [n % 3]) for n in range(12)]
EVAL = [
    ("--aaaaaaaaa", "0.000", [0]),
    ("Ybbbbbbbbbb", "10.000", [0, 2]),
    ("cc_ccccc_30", "30.000", [1]),
    ("ddddddddddd", "70.000", [2]),
    ("_eeeeeeeeee", "5.000", [0, 1, 2]),
    ("fffffffffff", "0.000", [1]),
]
# The ways in which copies of AudioSet name these files.
NAMES = ["Y--aaaaaaaaa.wav", "Ybbbbbbbbbb_10.000.WAV", "sub/cc_ccccc_30_30000_40000.flac",
         "Yddddddddddd_70.000_80.000.ogg", "_eeeeeeeeee.Flac"]  # fmt: skip


def write_lists(root, **lists):
    root.mkdir(exist_ok=True)
    with open(root / "class_labels_indices.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [("index", "mid", "display_name"), *((n, *one) for n, one in enumerate(CLASSES))]
        )
    for name, rows in lists.items():
        lines = ["# Segments csv created for a test", "# num_ytids=0",
                 "# YTID, start_seconds, end_seconds, positive_labels"]  # fmt: skip
        for id, start, labels in rows:
            mids = ",".join(CLASSES[n][0] for n in labels)
            lines.append(f'{id}, {start}, {float(start) + 10:.3f}, "{mids}"')
        (root / f"{name}_segments.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def tree(sound_tree):
    files = [f"audio/{id}.wav" for id, _, _ in TRAIN] + [f"audio/{name}" for name in NAMES]
    root = sound_tree("AudioSet", files)
    write_lists(root, balanced_train=TRAIN, eval=EVAL)
    return root


def small(root, **settings):
    defaults = {"sample_rate": 8000, "seconds": 0.1, "batch_size": 4, "seed": 0}
    return AudioSet(str(root), **defaults | settings)


def test_every_way_of_naming_a_file_is_found(tree):
    data = AudioSet(str(tree))
    clips, labels = data.read_clips()
    assert labels == [name for _, name in CLASSES]
    scored = {clip.id: clip for clip in clips if clip.fold == TEST}
    assert {id: clip.label for id, clip in scored.items()} == {
        id: tuple(labels) for id, _, labels in EVAL[:5]
    }
    assert [clip.path.name for clip in scored.values()] == [Path(name).name for name in NAMES]
    assert sum(clip.fold == TRAINING for clip in clips) == 12
    assert data.left_out == [f"fffffffffff (eval): no file in {tree / 'audio'}"]
    assert data.task == "multilabel"
    assert data.split.folds == 1


def test_another_part_of_the_same_video_is_not_the_segment(tree):
    (tree / "audio" / "Yfffffffffff_120.000.wav").hardlink_to(tree / "audio" / "train000000.wav")
    data = AudioSet(str(tree))
    clips, _ = data.read_clips()
    assert "fffffffffff" not in {clip.id for clip in clips}
    assert len(data.left_out) == 1


def test_missing_and_broken_files_are_counted_and_named_once(tree):
    (tree / "audio" / "train000003.wav").unlink()
    broken = tree / "audio" / "train000004.wav"
    broken.unlink()
    broken.write_text("no sound")
    (tree / "audio" / "jingle.wav").write_text("extra")
    data = small(tree)
    with pytest.warns(UserWarning, match="4 clips left out: ") as told:
        data.setup()
    assert len(told) == 1
    message = str(told[0].message)
    assert "train000003 (balanced_train): no file" in message
    assert "train000004.wav: not a readable" in message
    assert "jingle.wav: not named by a YouTube id" in message
    assert "fffffffffff (eval)" in message
    used = [name for batch in data.train_dataloader() for name in batch["id"]]
    assert len(used) == 10


@pytest.mark.filterwarnings("ignore:.*left out")
def test_targets_are_multi_hot(tree):
    data = small(tree)
    data.setup()
    targets = {id: [int(n in labels) for n in range(3)] for id, _, labels in EVAL}
    for batch in data.test_dataloader():
        for id, label in zip(batch["id"], batch["label"].tolist(), strict=True):
            assert label == targets[id]


@pytest.mark.filterwarnings("ignore:.*left out")
def test_balanced_sampling_draws_rare_classes_as_often(tree):
    rows = [(id, start, [0] if n else [0, 2]) for n, (id, start, _) in enumerate(TRAIN)]
    write_lists(tree, balanced_train=rows, eval=EVAL)
    data = small(tree, balanced=True, batch_size=12)
    data.setup()
    (batch,) = data.train_dataloader()
    # Half of the draws are of the class that one clip has; the class without clips is passed over.
    assert Counter(batch["id"])["train000000"] >= 6
    assert batch["label"][:, 1].sum() == 0


@pytest.mark.filterwarnings("ignore:.*left out")
def test_validation_is_a_part_of_training_and_leaves_the_evaluation_list_alone(sound_tree):
    train = [(f"train{n:06}", "0.000", [n % 3]) for n in range(60)]
    root = sound_tree("set", [f"audio/{id}.wav" for id, _, _ in [*train, *EVAL]])
    write_lists(root, balanced_train=train, eval=EVAL)
    data = small(root, holdout="validation")
    data.setup()
    trained = {name for batch in data.train_dataloader() for name in batch["id"]}
    scored = {name for batch in data.val_dataloader() for name in batch["id"]}
    assert len(trained) + len(scored) == 60
    assert not trained & scored
    assert 1 <= len(scored) <= 15
    assert data.split.scored == VALIDATION
    test = small(root)
    test.setup()
    assert len({name for batch in test.train_dataloader() for name in batch["id"]}) == 60


@pytest.mark.filterwarnings("ignore:.*left out")
def test_a_copy_without_sound_is_an_error_that_says_what_is_expected(tmp_path):
    write_lists(tmp_path / "empty", balanced_train=TRAIN, eval=EVAL)
    with pytest.raises(DataError, match=r"no usable training clips .*audio/Y--PJHxphWEs\.wav"):
        small(tmp_path / "empty").setup()


def test_a_folder_of_sounds_that_is_none_is_named(tree, tmp_path):
    with pytest.raises(DataError, match="audioo is no folder: audio names that of the sound files"):
        AudioSet(str(tree), audio=str(tmp_path / "audioo")).read_clips()


def test_missing_lists_are_named(tree):
    with pytest.raises(DataError, match=r"unbalanced_train_segments\.csv not found"):
        AudioSet(str(tree), train="unbalanced").read_clips()
    (tree / "class_labels_indices.csv").unlink()
    with pytest.raises(DataError, match=r"class_labels_indices\.csv not found"):
        AudioSet(str(tree)).read_clips()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('ggggggggggg, 0.000, 10.000, "/m/unknown"', "/m/unknown are not in class_labels"),
        ("ggggggggggg, 0.000", "expected YTID, start_seconds"),
        ('ggggggggggg, start, 10.000, "/m/09x0r"', "expected YTID, start_seconds"),
    ],
)
def test_broken_lists_are_refused(tree, line, message):
    with open(tree / "eval_segments.csv", "a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=message):
        AudioSet(str(tree)).read_clips()


@pytest.mark.skipif(not REAL.is_dir(), reason="needs the lists at ../shared/data/AudioSet")
def test_the_official_lists_are_read_whole():
    data = AudioSet(str(REAL))
    clips, labels = data.read_clips()
    assert len(labels) == 527
    assert clips == []  # there are only lists
    assert len(data.left_out) == 22160 + 20371


def test_a_tagger_of_its_classes_is_scored_without_training(tree):
    net = small_model("cnn6_025", 3, frontend=FRONTEND)
    net.labels, net.task = [CLASSES[n][1] for n in (2, 0, 1)], "multilabel"
    found = transfer(net, small(tree), ZERO_SHOT)
    kept = found.predictions
    assert list(kept.clip) == sorted(id for id, _, _ in EVAL[:5])
    truth = {id: [n in labels for n in range(3)] for id, _, labels in EVAL}
    assert kept.label.tolist() == [truth[id] for id in kept.clip]
    expected = average_precision_score(kept.label, kept.logits, average="macro")
    assert found.result.metric == "mAP" and found.result.mean == pytest.approx(expected, abs=1e-6)
    assert found.protocol.endswith("; zero-shot by label map")
    sounds = small(tree)
    sounds.setup()
    batch = next(iter(sounds.test_dataloader()))
    row = list(kept.clip).index(batch["id"][0])
    answers = net.eval()(batch["waveform"])[0].detach().numpy()[[1, 2, 0]]
    np.testing.assert_allclose(kept.logits[row], answers, rtol=2e-3)
    with pytest.raises(DataError, match="a probe needs folds"):
        transfer(net, small(tree))
    net.labels = ["Speech", "Animal", "Rain"]
    with pytest.raises(DataError, match="no class of the tagger means 'Male speech"):
        transfer(net, small(tree), ZERO_SHOT)
