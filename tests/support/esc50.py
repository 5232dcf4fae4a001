"""A made ESC-50, and front-end settings that fit sounds so short."""

import csv
from pathlib import Path

import numpy as np
import soundfile

SETTINGS = {"sample_rate": 16000, "n_fft": 512, "hop_length": 160, "n_mels": 32, "f_max": 7500.0}
# ESC-50's own numbers for these classes; Hz of the made tone, None: white noise.
CLASSES = {0: ("dog", True, 300), 5: ("cat", False, 900), 10: ("rain", True, None),
           38: ("clock_tick", True, 2500)}  # fmt: skip
ESC50_RATE = 8000


def make_esc50(root: Path) -> Path:
    """ESC-50's layout: 5 folds × 4 classes (one outside ESC-10) × 2 clips of 1 s at 8 kHz."""
    rng = np.random.default_rng(0)
    (root / "meta").mkdir(parents=True)
    (root / "audio").mkdir()
    time, rows = np.arange(ESC50_RATE) / ESC50_RATE, []
    for fold in range(1, 6):
        for target, (category, esc10, tone) in CLASSES.items():
            source = 1000 * fold + target
            for take in "AB":
                samples = 0.1 * rng.standard_normal(len(time))
                if tone is not None:
                    samples = 0.02 * samples + 0.3 * np.sin(
                        2 * np.pi * (tone * time + rng.random())
                    )
                name = f"{fold}-{source}-{take}-{target}.wav"
                soundfile.write(root / "audio" / name, samples, ESC50_RATE)
                rows.append([name, fold, target, category, esc10, source, take])
    with open(root / "meta" / "esc50.csv", "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["filename", "fold", "target", "category", "esc10", "src_file", "take"])
        table.writerows(rows)
    return root
