import copy
import json
import warnings
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import qaudio
from qaudio.deploy import fused_layers, optimize, timing
from qaudio.deploy.optimize import TOLERANCE, OptimizedModel
from qaudio.frontend_settings import FrontendConfig
from qaudio.models.base import AudioModel
from qaudio.models.cnn import CNN
from qaudio.models.config import ModelConfig
from qaudio.models.panns import ConvBlock
from qaudio.quaternion.layers import QConv2d
from qaudio.zoo.store import entries
from tests.support.networks import SMALL, noise, same_state, small_model, sounds


def eager(model: AudioModel, **settings) -> OptimizedModel:
    return qaudio.optimize(model, seconds=0.5, **({"compile": False} | settings))


def difference(model: AudioModel, optimized: AudioModel) -> float:
    """Largest difference of logits on many sounds, as a share of their range."""
    clips = [
        noise(2, 16000), sounds(3, 9000), torch.zeros(1, 5000),
        (30 * noise(2, 20000)).clamp(-1, 1), noise(1, 700),
    ]  # fmt: skip
    with torch.inference_mode():
        pairs = [(model(clip), optimized(clip)) for clip in clips]
    every = torch.cat([expected for expected, _ in pairs])
    worst = max(float((a - b).abs().max()) for a, b in pairs)
    return worst / float(every.max() - every.min())


@pytest.fixture
def only(monkeypatch):
    """Leave one form to the layers that have it."""

    def leave(form: str) -> None:
        def chosen(layer, dtype, compile):
            return [form] if form in fused_layers.forms(layer, dtype, compile) else ["matrix"]

        monkeypatch.setattr(optimize, "forms", chosen)

    return leave


@pytest.mark.parametrize("arch", SMALL)
def test_logits_are_the_models_in_the_forms_chosen(arch):
    model = small_model(arch)
    before = copy.deepcopy(model)
    optimized = eager(model)
    assert 0 < optimized.difference < TOLERANCE
    assert difference(model, optimized) < TOLERANCE
    assert optimized.original is model and same_state(model, before)
    assert optimized.config == model.config
    convolutions = [m for m in model.modules() if isinstance(m, (nn.Conv2d, QConv2d))]
    assert len(optimized.choices) == len(convolutions) + model.quaternion  # and fc1
    assert "tiled" not in optimized.choices.values()  # which takes a compiler
    assert not any(isinstance(m, nn.BatchNorm2d) for m in optimized.network.modules())


@pytest.mark.parametrize("form", ["matrix", "packed", "grouped", "tiled"])
@pytest.mark.parametrize("arch", ["qcnn10_025", "qresnet38_013"])
def test_logits_are_the_models_in_every_form(arch, form, only, monkeypatch):
    only(form)
    monkeypatch.setattr(optimize, "can_compile", lambda: False)  # takes minutes
    model = small_model(arch)
    optimized = eager(model, compile=form == "tiled")
    assert form in optimized.choices.values()
    assert difference(model, optimized) < TOLERANCE


@pytest.mark.parametrize("name", entries())
def test_shipped_entries_keep_their_logits(name):
    model = qaudio.load(name)
    optimized = eager(model)
    assert difference(model.eval(), optimized) < TOLERANCE
    labels = [p.label for p in qaudio.predict(model, sounds(1, 32000)[0])]
    assert [p.label for p in qaudio.predict(optimized, sounds(1, 32000)[0])] == labels


@pytest.mark.slow  # the C++ compiler's time
def test_compiled_additions_take_other_lengths_without_compiling_again(only):
    only("grouped")
    model = small_model("qcnn6_025")
    optimized = eager(model, compile=True)
    assert fused_layers.can_compile()
    made = counters["stats"]["unique_graphs"]
    assert made >= 3
    with torch.inference_mode():
        for samples in (32000, 20480, 11111, 700):
            optimized(noise(1, samples))
    with torch.no_grad():
        optimized(noise(1, 17000))
    assert counters["stats"]["unique_graphs"] == made
    with torch.inference_mode():
        assert (model(noise(1, 30000)) - optimized(noise(1, 30000))).abs().max() < 1e-4
        between = optimized.network.conv_block1[0](torch.randn(1, 4, 32, 64))
    assert between.is_contiguous(memory_format=torch.channels_last)


def test_without_a_compiler_one_warning_and_the_eager_forms(only, monkeypatch, tmp_path):
    only("grouped")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, str(tmp_path / "no-g++")))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    monkeypatch.setattr(fused_layers, "_fused", fused_layers._fused.__wrapped__)
    torch._dynamo.reset()
    monkeypatch.setattr(optimize, "can_compile", cache(fused_layers.can_compile.__wrapped__))
    model = small_model("qcnn6_025")
    with pytest.warns(UserWarning, match=r"C\+\+ compiler such as g\+\+"):
        optimized = eager(model, compile=True)
    assert difference(model, optimized) < TOLERANCE
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eager(model, compile=True)


def test_choices_are_remembered_for_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("QAUDIO_CACHE", str(tmp_path))
    model = small_model("qcnn6_025")
    measured = eager(model).choices
    monkeypatch.setattr(timing, "shortest_seconds", lambda *_: pytest.fail("measured again"))
    assert eager(model).choices == measured
    (path,) = tmp_path.glob("*.json")
    stored = json.loads(path.read_text())
    turned = {
        machine: {
            key: {form: 1 / seconds for form, seconds in times.items()}
            for key, times in layers.items()
        }
        for machine, layers in stored.items()
    }
    path.write_text(json.dumps(turned))
    used = eager(model)
    assert all(used.choices[name] != form for name, form in measured.items())
    assert difference(model, used) < TOLERANCE


@pytest.mark.parametrize("arch", ["qcnn10_006", "qresnet38_006"])
def test_layers_that_follow_each_other_are_chosen_together(arch, monkeypatch):
    paths: list[list[str]] = []

    def noted(path, layout):
        assert layout == torch.contiguous_format  # the front-end's
        paths.append([layer.unit.name for layer in path])
        return {layer.unit.name: layer.names[0] for layer in path}

    monkeypatch.setattr(optimize, "fastest_forms", noted)
    model = small_model(arch)
    eager(model)
    inputs: list[str] = []
    for name, layer in model.named_modules():
        if isinstance(layer, QConv2d):
            layer.register_forward_hook(lambda *_, name=name: inputs.append(name))
    model(noise(1, 8000))
    along = [name for name in inputs if "downsample" not in name]
    assert paths == [along, *([name] for name in inputs if "downsample" in name)]


def test_bfloat16_states_its_error():
    model = small_model("qcnn6_025")
    optimized = eager(model, dtype=torch.bfloat16)
    found = difference(model, optimized)
    assert 1e-4 < optimized.difference < 0.05
    assert 1e-4 < found < 0.05
    assert optimized(noise(1, 9000)).dtype == torch.float32


class Branches(AudioModel):
    """A network that the package knows nothing of; `twice`: one that must not be folded."""

    def __init__(self, twice: bool):
        super().__init__(ModelConfig("branches", 5, frontend=FrontendConfig(kind="delta")))
        self.twice = twice
        self.first = nn.Conv2d(4, 16, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding="same", groups=16, padding_mode="circular")
        self.second = QConv2d(16, 16, 3, padding=1)
        self.second_norm = nn.BatchNorm2d(16)
        self.second_norm.act = nn.Hardswish()  # as timm's norms do
        self.classifier = nn.Linear(16, 5)

    def embed_features(self, features: Tensor) -> Tensor:
        x = self.first(features)
        x = self.norm(x) + (x if self.twice else 0)
        x = self.second(self.depthwise(x).relu())
        if type(self.second_norm) is nn.BatchNorm2d:
            x = self.second_norm.act(self.second_norm(x))
        else:
            x = self.second_norm(x)
        return x.mean(dim=(2, 3))


@pytest.mark.parametrize("twice", [False, True])
def test_networks_of_unknown_structure_are_folded_where_that_is_right(twice):
    torch.manual_seed(0)
    model = Branches(twice).eval()
    for norm in (model.norm, model.second_norm):
        nn.init.normal_(norm.running_mean, -20)
        nn.init.uniform_(norm.running_var, 50, 200)
    optimized = eager(model)
    assert difference(model, optimized) < TOLERANCE
    assert isinstance(optimized.network.norm, nn.BatchNorm2d) == twice
    assert isinstance(optimized.network.depthwise, nn.Conv2d)
    assert difference(model, eager(model, dtype=torch.bfloat16)) < 0.1


class Leaky(ConvBlock):
    def forward(self, x: Tensor) -> Tensor:
        for n in range(1, self.depth + 1):
            x = self.get_submodule(f"bn{n}")(self.get_submodule(f"conv{n}")(x))
            x = nn.functional.leaky_relu(x, 0.3)
        return nn.functional.max_pool2d(x, self.pool)


class Gated(CNN):
    def trunk(self, x: Tensor) -> Tensor:
        for b in range(1, self.depth + 1):
            x = self.get_submodule(f"conv_block{b}")(x)
            x = x * x.mean(dim=(2, 3), keepdim=True).sigmoid()
        return x


@pytest.mark.parametrize("form", ["grouped", "matrix", "tiled"])
@pytest.mark.parametrize("changed", ["block", "network"])
def test_subclasses_may_do_otherwise(changed, form, only):
    only(form)
    model = small_model("qcnn6_006")
    if changed == "network":
        model.__class__ = Gated
    else:
        model.conv_block2.__class__ = Leaky
    assert difference(model, eager(model)) < TOLERANCE
    assert difference(model, eager(model, dtype=torch.bfloat16)) < 0.1


class Restless(Branches):
    """Nothing that an optimized form could agree with."""

    def embed_features(self, features: Tensor) -> Tensor:
        return super().embed_features(features) + torch.rand(16)


def test_outputs_that_differ_are_said():
    with pytest.warns(UserWarning, match=r"off by \S+ of their range.*use it as it is"):
        optimized = eager(Restless(False).eval())
    assert optimized.difference > TOLERANCE


def test_networks_of_unknown_structure_take_the_kernel(only, monkeypatch):
    only("tiled")
    monkeypatch.setattr(optimize, "can_compile", lambda: False)
    model = Branches(False).eval()
    optimized = eager(model, compile=True)
    assert optimized.choices["second"] == "tiled" != optimized.choices["first"]
    assert difference(model, optimized) < TOLERANCE


def test_something_can_be_trained_on_the_embeddings_of_an_optimized_model():
    fast = qaudio.optimize(small_model("qcnn6_006"), seconds=0.5, compile=False)
    probe = nn.Linear(fast.classifier.in_features, 2)
    probe(fast.embed(noise(1, 8000))).sum().backward()
    assert probe.weight.grad.abs().sum() > 0


def test_optimized_models_refuse_what_they_cannot_do(tmp_path):
    optimized = eager(small_model("qcnn6_025"))
    refused = [
        lambda: optimized.train(),
        lambda: optimized.to(torch.float64),
        lambda: optimized.state_dict(),
        lambda: optimized.reset_classifier(3),
        lambda: qaudio.prune(optimized, ratio=0.5),
        lambda: qaudio.save(optimized, tmp_path / "entry"),
    ]
    for call in refused:
        with pytest.raises(TypeError, match=r"optimized model cannot be .* `\.original`"):
            call()
    assert not (tmp_path / "entry").exists()
    assert eager(optimized).original is optimized.original


def test_cost_counts_the_original_and_times_the_optimized():
    model = small_model("qcnn6_025")
    optimized = eager(model)
    plain, fast_cost = (
        qaudio.cost(model, seconds=1),
        qaudio.cost(optimized, seconds=1, latency=True),
    )
    assert (fast_cost.params, fast_cost.macs, fast_cost.bytes) == (
        plain.params, plain.macs, plain.bytes,
    )  # fmt: skip
    assert fast_cost.latency is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seconds": 0}, "seconds and batch must be positive"),
        ({"batch": 0}, "seconds and batch must be positive"),
        ({"dtype": torch.float16}, "torch.float32 or torch.bfloat16"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        qaudio.optimize(small_model("cnn6_025"), **settings)


def test_only_float32_models_are_taken():
    with pytest.raises(ValueError, match="takes a float32 model"):
        qaudio.optimize(small_model("cnn6_025").double())


@pytest.mark.parametrize("arch", ["cnn6_025", "qcnn6_025", "resnet38_013"])
def test_optimized_model_gives_no_number_where_the_model_gives_none(arch):
    model = small_model(arch)
    optimized, clips = eager(model), noise(3, 16000)
    clips[0, 4000], clips[1, 4000] = float("nan"), 1e30
    with torch.inference_mode():
        expected, found = model(clips), optimized(clips)
    assert expected[:2].isnan().all()
    assert torch.equal(found.isnan(), expected.isnan())


def test_optimize_refuses_weights_that_are_no_numbers():
    model = small_model("qcnn6_025")
    next(model.parameters()).data.flatten()[0] = float("nan")
    with pytest.raises(ValueError, match=r"tensor \S+ holds NaN or infinite values"):
        eager(model)
