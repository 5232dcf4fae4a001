"""RAVDESS speech (Livingstone & Russo, PLoS ONE 2018), speaker-independent."""

import re
from itertools import product
from typing import Any, Literal

from qaudio.data.archive import Archive
from qaudio.data.audio import sounds_by_name
from qaudio.data.benchmarks.registry import register_benchmark
from qaudio.data.clip import Clip
from qaudio.data.datamodule import AudioDataModule
from qaudio.download import Download
from qaudio.errors import DataError, check_choice

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
ACTORS = range(1, 25)
# Test actors of each fold: EmoBox (Ma et al., Interspeech 2024).
EMOBOX = (
    (1, 11, 20, 21), (4, 10, 12, 14), (8, 9, 19, 23), (3, 5, 7, 24), (2, 15, 16, 18),
    (6, 13, 17, 22),
)  # fmt: skip
PROTOCOLS = {
    "emobox": "RAVDESS speech, EmoBox's 6 speaker-independent folds",
    "actors": "RAVDESS speech, leave one actor out, 24 folds",
}


def speech_names() -> list[str]:
    """The 1440 file names of the speech recordings, without extension.

    MODALITY-CHANNEL-EMOTION-INTENSITY-STATEMENT-REPETITION-ACTOR, of which 03-01 is audio-only
    speech; neutral has no strong intensity.
    """
    return [
        f"03-01-{emotion:02}-{intensity:02}-{statement:02}-{repetition:02}-{actor:02}"
        for actor, emotion, intensity, statement, repetition in product(
            ACTORS, range(1, 9), (1, 2), (1, 2), (1, 2)
        )
        if (emotion, intensity) != (1, 2)
    ]


@register_benchmark(
    ravdess={
        "title": "RAVDESS speech",
        "about": "1440 recordings of 24 actors speaking two sentences in eight emotions",
        "use": "research on acted emotional speech, and on small networks for it",
        "not_for": "judging what people feel, or decisions about them (work, care, law, credit)",
        "limits": "Emotions are acted, by 24 professional actors with North American accents, in "
        "two English sentences and a studio: not a measure of what people feel, nor of other "
        "languages, ages, accents or rooms. `neutral` has half as many clips as each other class. "
        "Folds hold other speakers than training; random splits, common in papers, give far "
        "higher and not comparable scores.",
        "license": "CC BY-NC-SA 4.0",
        "hub": "narad/ravdess",
        "sharing": "speakers",
        "shared": r"\d+$",
        "citation": """@article{livingstone2018ravdess,
  title   = {The Ryerson Audio-Visual Database of Emotional Speech and Song ({RAVDESS})},
  author  = {Livingstone, S. R. and Russo, F. A.},
  journal = {PLoS ONE},
  volume  = {13},
  number  = {5},
  year    = {2018}
}""",
    },
)
class RAVDESS(AudioDataModule):
    """Acted emotions in speech: 24 actors, 8 emotions, 1440 clips; no actor on both sides.

    Expects `root/Actor_NN/03-01-….wav` (or .flac, .ogg, …); folders between are allowed, such as
    `Audio_Speech_Actors_01-24`. Songs and videos beside them are not used.
    `download` fetches the speech archive from Zenodo, record 1188976.

    Args:
        root: folder that holds `Actor_01` to `Actor_24`.
        protocol: "emobox", six folds of four actors; "actors", 24 folds of one.
        **settings: of `AudioDataModule`.
    """

    benchmark = "ravdess"
    dataset = "RAVDESS speech"
    archive = Archive(
        Download(
            "Audio_Speech_Actors_01-24.zip",
            "https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip",
            md5="bc696df654c87fed845eb13823edef8a",
        ),
        "",
        "RAVDESS is CC BY-NC-SA 4.0",
    )
    scored_on = (*AudioDataModule.scored_on, "protocol")
    layout = "Actor_01/03-01-01-01-01-01-01.wav (or .flac, .ogg) to Actor_24"

    def __init__(
        self,
        root: str = "data/RAVDESS",
        *,
        protocol: Literal["emobox", "actors"] = "emobox",
        **settings: Any,
    ):
        super().__init__(root, **settings)
        check_choice("protocol", protocol, PROTOCOLS)
        self.protocol = PROTOCOLS[protocol]
        groups = EMOBOX if protocol == "emobox" else tuple((actor,) for actor in ACTORS)
        self.folds = len(groups)
        self.fold_of = {actor: n for n, actors in enumerate(groups, 1) for actor in actors}

    def read_clips(self) -> tuple[list[Clip], list[str]]:
        found, clips = sounds_by_name(self.root), []
        names = speech_names()
        if not found.keys() & set(names):
            raise DataError(
                f"no RAVDESS speech under {self.root}: expected {self.layout}; --data.download "
                "true fetches it"
            )
        for name in names:
            fields = [int(field) for field in name.split("-")]
            emotion, actor = fields[2], fields[6]
            path = found.pop(name, self.root / f"Actor_{actor:02}" / f"{name}.wav")
            clips.append(Clip(path, emotion - 1, name, self.fold_of[actor]))
        for name, path in sorted(found.items()):
            # Songs (channel 02) and sound of videos (modality 01, 02) belong to the full set.
            if not re.fullmatch(r"0[123]-0[12](-\d\d){5}", name) or name.startswith("03-01-"):
                self.left_out.append(f"{path}: not a name of RAVDESS")
        return clips, list(EMOTIONS)
