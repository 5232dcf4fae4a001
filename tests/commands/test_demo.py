import sys

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["model.onnx"], "give entries"), (["--port", "0"], "--port must be 1 to 65535")],
)
def test_demo_refuses_wrong_usage(run, arguments, message):
    done = run("demo", *arguments)
    assert done.code == 2
    assert message in done.err


def test_demo_says_what_is_not_installed(run, monkeypatch, tiny_entry):
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = run("demo", tiny_entry)
    assert done.code == 1
    assert done.err == "qaudio: this needs gradio: pip install 'qaudio[demo]'\n"
