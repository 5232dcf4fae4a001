import json

import pytest
import torch

from qaudio.cli import main
from qaudio.commands import doctor
from qaudio.deploy.c import export
from qaudio.deploy.cpp_kernel import kernel


def found(capsys):
    assert main(["doctor", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    return {(one["topic"], one["name"]): one for one in listed}


@pytest.fixture
def only_onnx(monkeypatch):
    """Looked at is ONNX alone: what the others import takes its time."""
    monkeypatch.setattr(doctor, "RUNTIMES", {"onnx": doctor.RUNTIMES["onnx"]})


def test_what_is_here_works(only_onnx, capsys):
    told = found(capsys)
    assert told["exports", "onnx"]["works"]
    assert told["decoders", "WAV"]["works"] and told["decoders", "FLAC"]["works"]
    assert torch.__version__.startswith(told["packages", "torch"]["detail"].partition("+")[0])
    assert torch.backends.cpu.get_cpu_capability() in told["machine", "processor"]["detail"]
    assert told["compilers", "C++ kernel"]["works"] == (kernel() is not None)


def test_what_is_missing_is_said_with_what_brings_it(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "RUNTIMES", {"litert": (("no_such_package_qaudio",), (), "litert")})
    monkeypatch.setattr(export, "COMPILERS", ("no-such-compiler",))
    monkeypatch.delenv("CC", raising=False)
    told = found(capsys)
    assert not told["exports", "litert"]["works"]
    assert "pip install 'qaudio[litert]'" in told["exports", "litert"]["detail"]
    assert "typing_extensions" in told["exports", "litert"]["detail"]
    assert not told["compilers", "C"]["works"]


def test_an_installation_that_is_broken_is_told_and_is_no_failure(monkeypatch, capsys, tmp_path):
    (tmp_path / "broken_qaudio.py").write_text("raise RuntimeError('one\\ntwo')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "RUNTIMES", {"onnx": (("broken_qaudio",), (), "onnx")})
    detail = found(capsys)["exports", "onnx"]["detail"]
    assert detail.startswith("installed, but broken: one")
    assert "\n" not in detail


def test_the_table_has_every_topic(only_onnx, capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for topic in ("machine", "packages", "compilers", "exports", "decoders"):
        assert f"{topic}\n" in printed
