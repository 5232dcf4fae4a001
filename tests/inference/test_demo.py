import re

import numpy as np
import pytest

import qaudio
from qaudio.errors import AudioError
from qaudio.inference.demo import answer, facts, in_words
from qaudio.inference.explain import explain
from tests.support.networks import small_model

RATE = 8000


@pytest.fixture
def samples():
    return (0.1 * np.random.default_rng(0).standard_normal(2 * RATE)).astype(np.float32)


def test_answer_says_what_predict_says(tiny_model, samples):
    found = answer("tiny.made", tiny_model, samples, RATE)
    expected = qaudio.predict(tiny_model, samples, sample_rate=RATE)
    assert found.classes == {p.label.replace("_", " "): p.probability for p in expected}
    assert found.picture.size == (616, 836)
    assert found.picture.getextrema() != ((255, 255),) * 3
    assert re.match(r"Spectrogram, heat map .* is strongest from \d", found.text)


def test_facts_are_those_of_the_network(tiny_model):
    count = sum(p.numel() for p in tiny_model.parameters())
    found = facts("<b>.made", tiny_model, 12.4, 2.0)
    assert found.startswith(r"### \<b\>.made")
    assert f"{count:,} parameters · {4 * count / 1e6:.2f} MB · **12 ms** for these 2.0 s" in found


def test_words_say_why_there_is_no_heat(samples):
    found = explain(small_model("ast_tiny"), samples, RATE)
    assert "attention over patches" in in_words(found)


def test_answer_refuses_what_is_no_sound(tiny_model):
    with pytest.raises(AudioError, match="NaN"):
        answer("tiny.made", tiny_model, np.full(RATE, np.nan, np.float32), RATE)
