"""Facts on the benchmarks, as cards print them. Facts only: no score stands here."""

from __future__ import annotations

_ESC = """@inproceedings{piczak2015esc,
  title     = {{ESC}: Dataset for Environmental Sound Classification},
  author    = {Piczak, K. J.},
  booktitle = {ACM Multimedia},
  year      = {2015}
}"""
_GTZAN = """@article{tzanetakis2002musical,
  title   = {Musical Genre Classification of Audio Signals},
  author  = {Tzanetakis, G. and Cook, P.},
  journal = {IEEE Transactions on Speech and Audio Processing},
  volume  = {10},
  number  = {5},
  year    = {2002}
}"""
EFFICIENTAT = """@inproceedings{schmid2023efficientat,
  title     = {Efficient Large-Scale Audio Tagging via Transformer-to-{CNN} Knowledge Distillation},
  author    = {Schmid, F. and Koutini, K. and Widmer, G.},
  booktitle = {ICASSP},
  year      = {2023}
}"""
_ESC_BIAS = (
    "The clips come from freesound.org, as its users recorded and labelled them, and were cut "
    "around one event each: short, mostly clean and close to the microphone. Field recordings, "
    "mixtures, other microphones and sounds that such users seldom upload are outside what was "
    "measured. Clips of one source recording never lie in two folds."
)
_ESC_SHARED = {"sharing": "source recordings", "shared": r"^\d+-\d+"}
_GTZAN_USE = "telling ten genres of Western music apart in research on music classification"
_GTZAN_NOT = "describing music to listeners, or paying or ranking artists"

# title, about: what it is. use, not_for: of a network trained on it. limits: with biases of its
# data. license: of the data. hub: id of a copy on huggingface.co/datasets. citation: BibTeX.
# sharing: what clips of a kind have in common, in the plural. shared: where their ids tell of which
# they are, a regular expression.
DATASETS: dict[str, dict[str, str]] = {
    "esc10": {
        "title": "ESC-10",
        "about": "ten classes of environmental sounds, 40 clips of five seconds each, the "
        "subset of ESC-50 that its author released under CC BY",
        "use": "telling ten everyday sounds apart in short clips, on devices with little memory "
        "and no network",
        "not_for": "alarms and surveillance: ten classes say nothing of any other sound",
        "limits": "It has seen 400 clips of ten classes and gives one of these for every sound, "
        f"whatever it is: probabilities do not say that a sound is none of them. {_ESC_BIAS}",
        "license": "CC BY 3.0",
        "hub": "ashraq/esc50",
        **_ESC_SHARED,
        "citation": _ESC,
    },
    "esc50": {
        "title": "ESC-50",
        "about": "fifty classes of environmental sounds, 40 clips of five seconds each",
        "use": "telling fifty everyday sounds apart in short clips",
        "not_for": "alarms and surveillance, nor anything commercial (see the licence)",
        "limits": "It has seen 2000 clips of fifty classes and gives one of these for every sound, "
        f"whatever it is. {_ESC_BIAS}",
        "license": "CC BY-NC 3.0",
        "hub": "ashraq/esc50",
        **_ESC_SHARED,
        "citation": _ESC,
    },
    "gtzan": {
        "title": "GTZAN",
        "about": "ten genres of music, 100 clips of 30 seconds each, cut into segments whose "
        "logits are averaged",
        "use": _GTZAN_USE,
        "not_for": _GTZAN_NOT,
        "limits": "GTZAN holds repeated, mislabelled and distorted clips (Sturm, arXiv 1306.1461); "
        "scores on its fault-filtered split and on ten folds are not comparable with one another, "
        "nor with splits that share songs or artists between training and test. Genres are those "
        "of one collection, from before 2002, and one of ten is given for any sound.",
        "license": "no licence stated; research use",
        "hub": "marsyas/gtzan",
        "citation": _GTZAN,
    },
    "gtzan_sample": {
        "title": "GTZAN sample (100 clips)",
        "about": "ten clips of each of GTZAN's ten genres, cut into segments whose logits are "
        "averaged",
        "use": "seeing that training works on music; " + _GTZAN_USE,
        "not_for": _GTZAN_NOT,
        "limits": "A tenth of GTZAN: its scores are not GTZAN's and not comparable with any. "
        "100 clips tell whether training works, not how well genres are told apart, and GTZAN's "
        "faults (repeats, mislabels; Sturm, arXiv 1306.1461) are in them.",
        "license": "no licence stated; research use",
        "citation": _GTZAN,
    },
    "audioset": {
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
    "audioset_kd": {
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
        "citation": EFFICIENTAT,
    },
    "ravdess": {
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
}


def about(benchmark: str) -> dict[str, str]:
    """What is known of a benchmark; of your own recordings, that little is."""
    own = {
        "title": benchmark,
        "about": "your own recordings",
        "use": "sounds like those it was trained on",
        "not_for": "anything that those recordings do not hold",
        "limits": "Not assessed: what the recordings hold and lack is for their owner to say.",
        "license": "not stated",
    }
    return DATASETS.get(benchmark, own)
