"""AudioSet (Gemmeke et al., ICASSP 2017): from its CSV files and a folder of sound files."""

import csv
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from qaudio.data.audio import sounds_by_name
from qaudio.data.benchmarks.registry import register_benchmark
from qaudio.data.clip import Clip
from qaudio.data.datamodule import AudioDataModule
from qaudio.data.pool import SoundPool
from qaudio.data.split import TEST, TRAINING, VALIDATION
from qaudio.data.tables import read_rows
from qaudio.errors import DataError, check_choice
from qaudio.paths import expanded

LISTS = {
    "balanced": ("balanced_train",),
    "unbalanced": ("unbalanced_train",),
    "full": ("balanced_train", "unbalanced_train"),
}
# [Y]YOUTUBE_ID[_START[_END]], times in seconds or milliseconds.
NAME = re.compile(r"Y?([\w-]{11})(?:_(\d+(?:\.\d+)?))?(?:_\d+(?:\.\d+)?)?", re.ASCII)


@register_benchmark(
    audioset={
        "title": "AudioSet",
        "about": "527 classes of sound, several in each clip of ten seconds, from YouTube videos",
        "use": "tagging sound of any kind, and embeddings for other tasks",
        "not_for": "decisions about people, or evidence of what was heard",
        "limits": "Copies of AudioSet lack videos that are gone, each copy others: scores on "
        "different copies differ for that reason alone, and the ids that were scored stand in "
        "`predictions.npz`. Labels are weak (of ten seconds, not of moments), incomplete, and of "
        "uneven quality from class to class; mAP is the mean over classes with a positive clip.",
        "license": "labels CC BY 4.0; the videos' own licences vary",
        "citation": """@inproceedings{gemmeke2017audioset,
  title     = {Audio Set: An Ontology and Human-Labeled Dataset for Audio Events},
  author    = {Gemmeke, J. F. and others},
  booktitle = {ICASSP},
  year      = {2017}
}""",
    },
    audioset_kd={
        "title": "AudioSet's classes, learned from a published tagger",
        "about": "AudioSet's list of 527 classes, learned from the answers of a published tagger "
        "to recordings without labels; it never heard AudioSet",
        "use": "tagging sound of any kind, embeddings, and fine-tuning on few recordings",
        "not_for": "decisions about people, or evidence of what was heard",
        "limits": "It imitates another network, faults included, on sounds that are few beside "
        "AudioSet's: its score says how far it answers as its teacher does on sources that it "
        "never heard, not how often either is right. Classes that its pool hardly holds (most "
        "music, vehicles, machines) are learned from traces. Its probabilities are its teacher's, "
        "imitated: low ones for sounds that it does not know.",
        "license": "by source, as the table above has it",
        "citation": """@inproceedings{schmid2023efficientat,
  title     = {Efficient Large-Scale Audio Tagging via Transformer-to-{CNN} Knowledge Distillation},
  author    = {Schmid, F. and Koutini, K. and Widmer, G.},
  booktitle = {ICASSP},
  year      = {2023}
}""",
    },
)
class AudioSet(AudioDataModule):
    """527 classes of sound, several in a clip of 10 s; scored by mAP on the evaluation list.

    Expects in root the official `class_labels_indices.csv`, `eval_segments.csv` and
    `balanced_train_segments.csv` (or `unbalanced_…`), and in `audio` and below files named by
    YouTube id, with or without a leading "Y", a start time and an end time: `ID.wav`,
    `YID.flac`, `ID_30.000.ogg`, `YID_30000_40000.wav`. A copy is never complete: what is missing
    is counted and in `left_out`; the ids that were scored are in an entry's predictions.

    There is no official validation list: with holdout "validation" a tenth of the training
    segments, chosen by SHA-256 of the id, is kept out of training and scored.

    Args:
        root: folder that holds the CSV files.
        audio: folder of the sound files; None: `root/audio`.
        train: list to train on: "balanced" (22 k), "unbalanced" (2 M), or both ("full").
        **settings: of `AudioDataModule`; `balanced` is class-balanced sampling.
    """

    benchmark = "audioset"
    dataset = "AudioSet"
    folds = 1
    task = "multilabel"
    not_hosted = "its clips are parts of YouTube videos, each under a licence of its own"
    scored_on = (*AudioDataModule.scored_on, "train")
    layout = (
        "class_labels_indices.csv, eval_segments.csv, balanced_train_segments.csv, and files named "
        "by YouTube id such as audio/Y--PJHxphWEs.wav"
    )

    def __init__(
        self,
        root: str = "data/AudioSet",
        *,
        audio: str | None = None,
        train: Literal["balanced", "unbalanced", "full"] = "balanced",
        **settings: Any,
    ):
        super().__init__(root, **settings)
        check_choice("train", train, LISTS)
        self.audio = self.root / "audio" if audio is None else expanded(audio)
        self.train_lists = LISTS[train]
        self.protocol = f"AudioSet evaluation list, trained on {train} train"

    def read_clips(self) -> tuple[list[Clip], list[str]]:
        numbers, labels = self._classes()
        files = self._files()
        clips = []
        for name in (*self.train_lists, "eval"):
            for line, (id, start, mids) in enumerate(self._segments(name), start=1):
                unknown = [mid for mid in mids if mid not in numbers]
                if unknown or not mids:
                    raise DataError(
                        f"{name}_segments.csv: segment {line} ({id}): labels "
                        f"{', '.join(unknown) or 'missing'} are not in class_labels_indices.csv"
                    )
                path = _matching(files.get(id, []), start)
                if path is None:
                    self.left_out.append(f"{id} ({name}): no file in {self.audio}")
                    continue
                label = tuple(sorted(numbers[mid] for mid in mids))
                clips.append(Clip(path, label, id, TEST if name == "eval" else TRAINING))
        return clips, labels

    def part_of(self, clip: Clip) -> int:
        tenth = hashlib.sha256(clip.id.encode()).digest()[0] % 10 == 0
        validates = clip.fold == TRAINING and tenth and self.holdout == "validation"
        return VALIDATION if validates else clip.fold

    def _classes(self) -> tuple[dict[str, int], list[str]]:
        """Index of every class by its mid, and the names in order."""
        columns = ("index", "mid", "display_name")
        rows = read_rows(self._found("class_labels_indices.csv"), columns=columns)
        if [row["index"] for row in rows] != [str(n) for n in range(len(rows))]:
            raise DataError("class_labels_indices.csv: indices are not 0, 1, 2, … in order")
        return {row["mid"]: n for n, row in enumerate(rows)}, [row["display_name"] for row in rows]

    def _segments(self, name: str) -> Iterator[tuple[str, float, list[str]]]:
        """Id, start in seconds and labels of every segment of a list."""
        with open(self._found(f"{name}_segments.csv"), newline="", encoding="utf-8") as file:
            lines = (line for line in file if not line.startswith("#") and line.strip())
            for row in csv.reader(lines, skipinitialspace=True):
                try:
                    id, start, _, mids = row
                    yield id, float(start), [mid for mid in mids.split(",") if mid]
                except ValueError:
                    raise DataError(
                        f"{name}_segments.csv: expected YTID, start_seconds, end_seconds, "
                        f'"labels", not {", ".join(row)!r}'
                    ) from None

    def _found(self, name: str) -> Path:
        path = self.root / name
        if not path.is_file():
            raise DataError(f"{path} not found: {self.root} must hold {self.layout}")
        return path

    def _files(self) -> dict[str, list[tuple[float | None, Path]]]:
        """Start time and path of the files of each YouTube id."""
        files: dict[str, list[tuple[float | None, Path]]] = {}
        if self.audio != self.root / "audio" and not self.audio.is_dir():
            raise DataError(f"{self.audio} is no folder: audio names that of the sound files")
        for name, path in sounds_by_name(self.audio).items():
            match = NAME.fullmatch(name)
            if match is None:
                self.left_out.append(f"{path}: not named by a YouTube id")
                continue
            start = None if match[2] is None else float(match[2])
            files.setdefault(match[1], []).append((start, path))
        return files


class AudioPool(SoundPool):
    """Recordings without labels, for `DistilledClassifier`, whose teacher names what is in them.

    What the student answers on held-out sources is compared with what the teacher answers.
    """

    benchmark = "audioset_kd"


def _matching(files: list[tuple[float | None, Path]], start: float) -> Path | None:
    """The file that is the segment beginning at `start` seconds; other parts of a video are not."""
    for stated, path in files:
        if stated is None or min(abs(stated - start), abs(stated - 1000 * start)) < 1:
            return path
    return None
