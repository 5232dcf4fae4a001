"""The page of `qaudio demo`: a sound in, and what one or two networks say of it."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qaudio.errors import QaudioError
from qaudio.inference.explain import Explanation, explain, read_part
from qaudio.inference.picture import draw
from qaudio.models.base import AudioModel
from qaudio.prediction import analyse
from qaudio.text import markdown, shown

NONE = "none"  # in place of a second entry
TOP_K = 5
PICTURE_INCHES = 5.6
MOST_UPLOAD = "200mb"
STYLE = """
.gradio-container { max-width: 1200px !important; margin: 0 auto; }
.facts td { padding: 0 1em 0 0; }
"""


@dataclass(frozen=True)
class Answer:
    """What the page shows of one network.

    Attributes:
        facts: Markdown: name, parameters, size, milliseconds.
        classes: probabilities by label, the most probable ones.
        text: the picture in words.
    """

    facts: str
    classes: dict[str, float]
    picture: Image.Image
    text: str


def answer(name: str, model: AudioModel, samples: np.ndarray, sample_rate: int) -> Answer:
    """Run and explain a network on a sound.

    Args:
        samples: (T,) float32.
        sample_rate: Hz.

    Raises:
        AudioError: for samples that cannot be used.
    """
    analyse(model, samples, sample_rate=sample_rate)  # a first run takes longer
    begun = time.perf_counter()
    analyse(model, samples, sample_rate=sample_rate)
    milliseconds = 1000 * (time.perf_counter() - begun)
    found = explain(model, samples, sample_rate, top_k=TOP_K)
    return Answer(
        facts(name, model, milliseconds, len(samples) / sample_rate),
        {shown(p.label).replace("_", " "): p.probability for p in found.top},
        _picture(found),
        in_words(found),
    )


def facts(name: str, model: AudioModel, milliseconds: float, seconds: float) -> str:
    """Name, size and time of a network as Markdown."""
    weights = list(model.parameters())
    count = sum(one.numel() for one in weights)
    size = sum(one.numel() * one.element_size() for one in weights) / 1e6
    return (
        f"### {markdown(shown(name))}\n\n{count:,} parameters · {size:.2f} MB · "
        f"**{milliseconds:.0f} ms** for these {seconds:.1f} s"
    )


def in_words(found: Explanation) -> str:
    """What the picture shows, for those who do not see it."""
    label, strongest = shown(found.prediction.label).replace("_", " "), found.strongest()
    if found.reason is not None:
        return f"Spectrogram and probabilities over time. {shown(found.reason)}."
    if strongest is None:
        return f"Spectrogram and probabilities over time; no part speaks for {label}."
    return (
        f"Spectrogram, heat map and probabilities over time; {label} is strongest from "
        f"{strongest[0]:.2f} to {strongest[1]:.2f} s."
    )


def _picture(found: Explanation) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = draw(found, width=PICTURE_INCHES)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def build(
    models: Mapping[str, AudioModel],
    example: str | os.PathLike | None = None,
    note: str = "It stays on this machine.",
) -> Any:
    """The page, a `gradio.Blocks`, for `launch`.

    Args:
        models: networks by the name that is shown, one or more.
        example: a sound file to offer.
        note: where sounds go, a sentence.

    Raises:
        ModuleNotFoundError: without gradio.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # nothing leaves the machine
    import gradio

    names = list(models)

    def run(path: str | None, left: str, right: str) -> list[Any]:
        if path is None:
            return [*_empty(gradio), *_empty(gradio)]
        try:
            samples, rate = read_part(path)
            answers = [
                answer(name, models[name], samples, rate) if name in models else None
                for name in (left, right)
            ]
        except QaudioError as error:
            raise gradio.Error(str(error).replace(path, Path(path).name)) from None
        return [
            part for one in answers for part in (_filled(gradio, one) if one else _empty(gradio))
        ]

    with gradio.Blocks(title="qaudio", analytics_enabled=False) as page:
        gradio.Markdown(
            "# qaudio\n\nDrop or record a sound: which classes it has, when, and where in the "
            f"spectrogram the network finds the most probable one. {note}"
        )
        sound = gradio.Audio(
            sources=["upload", "microphone"], type="filepath", label="Sound", elem_id="sound",
            buttons=[],
        )  # fmt: skip
        with gradio.Row():
            left = gradio.Dropdown(
                names, value=names[0], label="Entry", elem_id="left", min_width=250
            )
            right = gradio.Dropdown(
                [NONE, *names], value=names[1] if len(names) > 1 else NONE, label="Beside it",
                elem_id="right", min_width=250, visible=len(names) > 1,
            )  # fmt: skip
        with gradio.Row():
            run_button = gradio.Button("Run", variant="primary", elem_id="run")
            if example is not None:
                offered = gradio.Button("Try a struck bowl", elem_id="example")
                offered.click(lambda: os.fspath(example), None, sound, show_progress="hidden")
        outputs = []
        with gradio.Row():
            for side in ("left", "right"):
                with gradio.Column(min_width=320):
                    outputs += [
                        gradio.Markdown(elem_id=f"{side}-facts", visible=False),
                        gradio.Label(
                            label="Classes", num_top_classes=TOP_K, elem_id=f"{side}-classes",
                            visible=False, show_heading=False,
                        ),
                        gradio.Image(
                            label="Why", show_label=False, elem_id=f"{side}-picture",
                            visible=False, format="png", buttons=["download", "fullscreen"],
                            interactive=False, type="pil",
                        ),
                        gradio.Markdown(elem_id=f"{side}-words", visible=False),
                    ]  # fmt: skip
        arguments = [sound, left, right]
        # One at a time: times that are compared must not disturb one another.
        for event in (sound.change, run_button.click, left.input, right.input):
            event(run, arguments, outputs, concurrency_limit=1, concurrency_id="run")
    return page


def _filled(gradio: Any, found: Answer) -> list[Any]:
    return [
        gradio.Markdown(found.facts, visible=True),
        gradio.Label(found.classes, visible=True),
        gradio.Image(found.picture, visible=True, alt_text=found.text),
        gradio.Markdown(found.text, visible=True),
    ]


def _empty(gradio: Any) -> list[Any]:
    return [
        gradio.Markdown(visible=False), gradio.Label(visible=False), gradio.Image(visible=False),
        gradio.Markdown(visible=False),
    ]  # fmt: skip


def launch(
    page: Any,
    *,
    host: str | None = "127.0.0.1",
    port: int | None = None,
    browser: bool = False,
    block: bool = True,
) -> str:
    """Serve a page of `build`.

    Args:
        host: address to listen at, this machine alone; None: gradio's, which a Space sets.
        port: None: a free one from 7860.
        browser: open it in a browser.
        block: return only when it is stopped.

    Raises:
        OSError: for a port that is taken.
    """
    import gradio

    # Fonts that a system has: none is fetched.
    plain = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    _, url, _ = page.launch(
        server_name=host, server_port=port, inbrowser=browser, quiet=True, share=False,
        prevent_thread_lock=True, footer_links=[], max_file_size=MOST_UPLOAD, css=STYLE,
        theme=plain, ssr_mode=False,
    )  # fmt: skip
    if block:
        print(f"qaudio: {url}; Ctrl-C stops", flush=True)
        page.block_thread()
    return url
