"""Write table.csv, which `qcnn10_050.yaml` reads, for copies of five corpora of acted emotion.

`python table.py FOLDER`, where FOLDER holds nEMO, EmoDB, TurEV-DB, RML and URDU, each with its
recordings under the names below; those that are missing are left out. None holds a speaker of
RAVDESS, whose names for the emotions are taken.
"""

import csv
import re
import sys
from pathlib import Path

NAMES = {
    "nEMO": r"(?P<speaker>\w+?)_(?P<emotion>[a-z]+)_\d+",  # Polish: SPK_anger_12
    "EmoDB": r"(?P<speaker>\d\d)\w\d\d(?P<emotion>[A-Z])\w",  # German: 03a01Wa
    "TurEV-DB": r"(?P<emotion>[A-Z][a-z]+)__(?P<speaker>\d+)_.+",  # Turkish: Angry__1157_kz_word
    "RML": r".*(?P<speaker>s\d)__(?:.+__)?(?P<emotion>[a-z]{2})\d+",  # six tongues: s3__f1eng__an2
    "URDU": r"(?P<emotion>[A-Z][a-z]+)__(?P<speaker>S[MF]\d+)_.+",  # Urdu: Sad__SM24_F1_S01
}
EMOTIONS = {
    "angry": ("anger", "Angry", "an", "W"),
    "bored": ("L",),
    "calm": ("Calm",),
    "disgust": ("di", "E"),
    "fearful": ("fear", "fe", "A"),
    "happy": ("happiness", "Happy", "ha", "F"),
    "neutral": ("neutral", "Neutral", "N"),
    "sad": ("sadness", "Sad", "sa", "T"),
    "surprised": ("surprised", "su"),
}
EMOTION = {code: emotion for emotion, codes in EMOTIONS.items() for code in codes}


def main(root: Path) -> None:
    rows = []
    for corpus, pattern in NAMES.items():
        for path in sorted((root / corpus).glob("*.*")):
            if found := re.fullmatch(pattern, path.stem):
                group = f"{corpus} {found['speaker']}"
                rows.append((f"{corpus}/{path.name}", EMOTION[found["emotion"]], group))
    with (root / "table.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "label", "group"), *rows])
    print(
        f"{root / 'table.csv'}: {len(rows)} recordings of {len({row[2] for row in rows})} speakers"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
