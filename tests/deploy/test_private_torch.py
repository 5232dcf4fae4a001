import ast
import re
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

import qaudio.deploy
from qaudio.deploy import private_torch
from qaudio.deploy.fused_layers import Convolution, forms


def test_private_interfaces_of_torch_are_used_in_one_file():
    for path in Path(qaudio.deploy.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and path.name != "private_torch.py":
                name = ast.unparse(node)
                private = re.search(r"\._[a-z]", name)
                assert not (name.startswith("torch.") and private), f"{path}: {name}"


def test_without_onednns_operators_no_layer_is_packed(monkeypatch):
    layer = nn.Conv2d(4, 4, 3)
    if private_torch.has_onednn():
        assert "packed" in forms(layer)
    monkeypatch.setattr(private_torch, "OPERATORS", ("_no_such_operator",))
    private_torch.has_onednn.cache_clear()
    assert forms(layer) == ["matrix"]
    monkeypatch.undo()
    private_torch.has_onednn.cache_clear()


def test_pieces_compile_without_the_compilers_settings(monkeypatch):
    monkeypatch.setattr(torch, "_dynamo", SimpleNamespace())
    with private_torch.sizes_apart():
        assert torch.is_tensor(torch.zeros(1))


def test_packed_convolution_is_the_convolution_and_hides_no_nan():
    layer = nn.Conv2d(4, 8, 3, padding=1)
    packs = private_torch.can_pack(layer.weight)  # else the fallback is compared
    weight, bias = layer.weight.detach(), layer.bias.detach()
    made = Convolution(layer, weight, bias, 1, True, packs, [2, 4, 9, 11])
    x = torch.randn(2, 4, 9, 11)
    with torch.no_grad():
        torch.testing.assert_close(made(x), layer(x).relu())
        assert made(x * float("nan")).isnan().all()
