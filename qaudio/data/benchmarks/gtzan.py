"""GTZAN genres (Tzanetakis & Cook, IEEE TSAP 10, 2002)."""

import hashlib
import re
from pathlib import Path
from typing import Any, Literal

from qaudio.data.audio import sounds_by_name
from qaudio.data.benchmarks.registry import register_benchmark
from qaudio.data.clip import Clip
from qaudio.data.datamodule import AudioDataModule
from qaudio.data.split import TEST, TRAINING, VALIDATION
from qaudio.errors import DataError, check_choice

GENRES = (
    "blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock",
)  # fmt: skip
UNDECODABLE = "jazz.00054"  # as distributed; some copies lack it for that reason
DEALT = "stratified, by SHA-256 of the clip's name"
PROTOCOLS = {
    "filtered": "GTZAN fault-filtered split 443/197/290",
    "10-fold": f"GTZAN 10 folds, {DEALT}",
    "sample": f"GTZAN sample (100 clips), 5 folds, {DEALT}",
    "sample-10-fold": f"GTZAN sample (100 clips), 10 folds, {DEALT}",
}
FOLDS = {"filtered": 1, "10-fold": 10, "sample": 5, "sample-10-fold": 10}


def filtered_split() -> dict[str, int]:
    """Clip name to fold of the fault-filtered split: 443 training, 197 validation, 290 test.

    The lists are those that torchaudio carries (from jordipons/sklearn-audio-transfer-learning).
    """
    from torchaudio.datasets import gtzan

    parts = {
        TRAINING: gtzan.filtered_train,
        VALIDATION: gtzan.filtered_valid,
        TEST: gtzan.filtered_test,
    }
    return {name: fold for fold, names in parts.items() for name in names}


def dealt(names: list[str], folds: int) -> dict[str, int]:
    """Clip name to fold, from 1: each genre's names in order of SHA-256 are dealt out in turn."""
    fold_of: dict[str, int] = {}
    for genre in GENRES:
        own = [name for name in names if name.startswith(f"{genre}.")]
        own.sort(key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        fold_of |= {name: n % folds + 1 for n, name in enumerate(own)}
    return fold_of


@register_benchmark(
    gtzan={
        "title": "GTZAN",
        "about": "ten genres of music, 100 clips of 30 seconds each, cut into segments whose "
        "logits are averaged",
        "use": "telling ten genres of Western music apart in research on music classification",
        "not_for": "describing music to listeners, or paying or ranking artists",
        "limits": "GTZAN holds repeated, mislabelled and distorted clips (Sturm, arXiv 1306.1461); "
        "scores on its fault-filtered split and on ten folds are not comparable with one another, "
        "nor with splits that share songs or artists between training and test. Genres are those "
        "of one collection, from before 2002, and one of ten is given for any sound.",
        "license": "no licence stated; research use",
        "hub": "marsyas/gtzan",
        "citation": """@article{tzanetakis2002musical,
  title   = {Musical Genre Classification of Audio Signals},
  author  = {Tzanetakis, G. and Cook, P.},
  journal = {IEEE Transactions on Speech and Audio Processing},
  volume  = {10},
  number  = {5},
  year    = {2002}
}""",
    },
    gtzan_sample={
        "like": "gtzan",
        "title": "GTZAN sample (100 clips)",
        "about": "ten clips of each of GTZAN's ten genres, cut into segments whose logits are "
        "averaged",
        "use": "seeing that training works on music; telling ten genres of Western music apart in "
        "research on music classification",
        "limits": "A tenth of GTZAN: its scores are not GTZAN's and not comparable with any. "
        "100 clips tell whether training works, not how well genres are told apart, and GTZAN's "
        "faults (repeats, mislabels; Sturm, arXiv 1306.1461) are in them.",
        "hub": "",
    },
)
class GTZAN(AudioDataModule):
    """Ten genres of music, 100 clips of 30 s each.

    Expects `root/genres/GENRE/GENRE.NNNNN.au` (or .wav, .flac, .ogg, …); the folder may also be
    named `genres_original`, or be root itself. Clips are split first and cut into segments
    afterwards.

    Args:
        root: folder that holds `genres`.
        protocol: "filtered" is the fault-filtered split of 930 clips; "10-fold" takes all 1000
            clips, with their known repeats and mislabels; "sample" is for 100 clips, ten of each
            genre, in 5 folds, "sample-10-fold" for these in 10: results of either are the
            sample's, never GTZAN's.
        segment_hop: of `AudioDataModule`.
        **settings: of `AudioDataModule`.
    """

    dataset = "GTZAN"
    not_hosted = "GTZAN has no licence and no official host"
    scored_on = (*AudioDataModule.scored_on, "protocol")
    layout = "genres/GENRE/GENRE.NNNNN.au (or .wav, .flac, .ogg), such as genres/jazz/jazz.00000.au"

    def __init__(
        self,
        root: str = "data/GTZAN",
        *,
        protocol: Literal["filtered", "10-fold", "sample", "sample-10-fold"] = "filtered",
        segment_hop: float | None = 5.0,
        **settings: Any,
    ):
        super().__init__(root, segment_hop=segment_hop, **settings)
        check_choice("protocol", protocol, PROTOCOLS)
        self.clip_list = protocol
        self.protocol = PROTOCOLS[protocol]
        self.of_sample = protocol.startswith("sample")
        self.benchmark = "gtzan_sample" if self.of_sample else "gtzan"
        self.folds = FOLDS[protocol]

    def read_clips(self) -> tuple[list[Clip], list[str]]:
        folder = self._genres()
        found = sounds_by_name(folder)
        extra = [n for n in found if not re.fullmatch(rf"({'|'.join(GENRES)})\.000\d\d", n)]
        self.left_out += [f"{found.pop(name)}: not a name of GTZAN" for name in extra]
        if self.of_sample:
            self._check_sample(found, folder)
            folds = dealt(list(found), self.folds)
        elif self.clip_list == "filtered":
            folds = filtered_split()
        else:
            names = [f"{genre}.{number:05}" for genre in GENRES for number in range(100)]
            folds = dealt(names, self.folds)
        missing = sorted(set(folds) - set(found) - {UNDECODABLE})
        if missing:
            raise DataError(
                f"{len(missing)} of the {len(folds)} clips of {self.protocol!r} are missing under "
                f"{folder} ({', '.join(missing[:5])}, …): a score without them is not GTZAN's. "
                f"Expected {self.layout}; for 100 clips, ten of each genre, there is "
                "--data.protocol sample"
            )
        clips = []
        for name in sorted(folds):
            genre = name.partition(".")[0]
            path = found.get(name, folder / genre / f"{name}.au")
            clips.append(Clip(path, GENRES.index(genre), name, folds[name]))
        return clips, list(GENRES)

    def _genres(self) -> Path:
        """The folder of the genres' folders."""
        kaggle = self.root / "Data" / "genres_original"
        for folder in (self.root / "genres", self.root / "genres_original", kaggle, self.root):
            if any((folder / genre).is_dir() for genre in GENRES):
                return folder
        raise DataError(
            f"no GTZAN under {self.root}: expected {self.layout}. It has no licence and no "
            "official host, so it is not downloaded"
        )

    def _check_sample(self, found: dict[str, Path], folder: Path) -> None:
        counts = [sum(name.startswith(f"{genre}.") for name in found) for genre in GENRES]
        if counts != [10] * len(GENRES):
            each = ", ".join(f"{genre} {n}" for genre, n in zip(GENRES, counts, strict=True))
            raise DataError(
                f"{folder}: the GTZAN sample has 10 clips of each genre, here are {each}"
            )
