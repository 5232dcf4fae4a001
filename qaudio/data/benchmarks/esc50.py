"""ESC-50 and its subset ESC-10 (Piczak, ACM MM 2015), and 26 classes of it."""

from typing import Any

from qaudio.data.archive import Archive
from qaudio.data.audio import sounds_by_name
from qaudio.data.benchmarks import audioset_names
from qaudio.data.benchmarks.registry import register_benchmark
from qaudio.data.clip import Clip
from qaudio.data.datamodule import AudioDataModule
from qaudio.data.tables import read_rows
from qaudio.download import Download
from qaudio.errors import DataError, InputError

# Of ESC-50's classes, those of the benchmark esc26: ESC-10's ten, animals, and some of each kind.
ESC26 = {*range(13), 14, 16, 19, 20, 21, 28, *range(38, 44), 46}


@register_benchmark(
    esc10={
        "title": "ESC-10",
        "about": "ten classes of environmental sounds, 40 clips of five seconds each, the "
        "subset of ESC-50 that its author released under CC BY",
        "use": "telling ten everyday sounds apart in short clips, on devices with little memory "
        "and no network",
        "not_for": "alarms and surveillance: ten classes say nothing of any other sound",
        "limits": "It has seen 400 clips of ten classes and gives one of these for every sound, "
        "whatever it is: probabilities do not say that a sound is none of them.",
        "bias": "The clips come from freesound.org, as its users recorded and labelled them, and "
        "were cut around one event each: short, mostly clean and close to the microphone. Field "
        "recordings, mixtures, other microphones and sounds that such users seldom upload are "
        "outside what was measured. Clips of one source recording never lie in two folds.",
        "license": "CC BY 3.0",
        "hub": "ashraq/esc50",
        "sharing": "source recordings",
        "shared": r"^\d+-\d+",
        "citation": """@inproceedings{piczak2015esc,
  title     = {{ESC}: Dataset for Environmental Sound Classification},
  author    = {Piczak, K. J.},
  booktitle = {ACM Multimedia},
  year      = {2015}
}""",
    },
    esc50={
        "like": "esc10",
        "title": "ESC-50",
        "about": "fifty classes of environmental sounds, 40 clips of five seconds each",
        "use": "telling fifty everyday sounds apart in short clips",
        "not_for": "alarms and surveillance, nor anything commercial (see the licence)",
        "limits": "It has seen 2000 clips of fifty classes and gives one of these for every sound, "
        "whatever it is.",
        "license": "CC BY-NC 3.0",
    },
    esc26={
        "like": "esc10",
        "title": "ESC-50, 26 of its classes",
        "about": "26 classes of environmental sounds of ESC-50, 40 clips of five seconds each, in "
        "its official folds: fewer classes than ESC-50 has, so its scores are none of ESC-50's",
        "use": "telling 26 everyday sounds apart in short clips",
        "not_for": "alarms and surveillance, nor anything commercial (see the licence)",
        "limits": "It has seen 1040 clips of 26 classes and gives one of these for every sound, "
        "whatever it is.",
        "license": "CC BY-NC 3.0",
    },
)
class ESC50(AudioDataModule):
    """Environmental sounds, 5 official folds; clips of one source are never split.

    Expects `root/meta/esc50.csv` and `root/audio/*`, as the authors publish them; `download`
    fetches that. GitHub makes the archive when it is asked for, so no checksum is published.

    Args:
        root: folder that holds `meta` and `audio`.
        esc10: only the ten classes of ESC-10 (CC BY; ESC-50 is CC BY-NC).
        esc26: only 26 classes, ESC-10's among them.
        **settings: of `AudioDataModule`.
    """

    dataset = "ESC-50"
    protocol = "ESC-50 official 5 folds"
    folds = 5
    audioset_names = audioset_names.ESC50
    archive = Archive(
        Download("ESC-50-master.zip", "https://github.com/karolpiczak/ESC-50/archive/master.zip"),
        "ESC-50-master",
        "ESC-50 is CC BY-NC 3.0, its ESC-10 subset CC BY 3.0",
    )
    scored_on = (*AudioDataModule.scored_on, "esc10", "esc26")
    layout = "meta/esc50.csv and the clips in audio/, such as audio/1-100032-A-0.wav"

    def __init__(
        self,
        root: str = "data/ESC-50",
        *,
        esc10: bool = False,
        esc26: bool = False,
        **settings: Any,
    ):
        super().__init__(root, **settings)
        if esc10 and esc26:
            raise InputError("esc10 and esc26 are two choices of classes: give one")
        self.esc10, self.esc26 = esc10, esc26
        self.benchmark = "esc10" if esc10 else "esc26" if esc26 else "esc50"

    def read_clips(self) -> tuple[list[Clip], list[str]]:
        index = self.root / "meta" / "esc50.csv"
        if not index.is_file():
            raise DataError(
                f"{index} not found: --data.root must name the ESC-50 folder that holds "
                "meta/esc50.csv and audio/; --data.download true fetches it"
            )
        needed = ("filename", "fold", "target", "category", "esc10")
        rows = read_rows(index, columns=needed)
        for line, row in enumerate(rows, start=2):
            if not all(row[name] for name in needed) or not (
                row["fold"].isdecimal() and row["target"].isdecimal()
            ):
                raise DataError(f"{index}: line {line}: a value is missing or no number")
        if self.esc10:
            rows = [row for row in rows if row["esc10"] == "True"]
        if self.esc26:
            rows = [row for row in rows if int(row["target"]) in ESC26]
            if missing := ESC26 - {int(row["target"]) for row in rows}:
                raise DataError(
                    f"{index} has no clips of {len(missing)} of the classes of esc26: "
                    f"{', '.join(map(str, sorted(missing)))}"
                )
        names = {int(row["target"]): row["category"] for row in rows}
        number = {target: n for n, target in enumerate(sorted(names))}
        audio = self.root / "audio"
        found, clips = sounds_by_name(audio), []
        for row in rows:
            name = row["filename"].rsplit(".", 1)[0]
            path = found.get(name, audio / row["filename"])  # also with another extension
            clips.append(Clip(path, number[int(row["target"])], name, int(row["fold"])))
        return clips, [names[target] for target in sorted(names)]
