import re

import pytest
import torch

from qaudio.frontend_settings import FrontendConfig
from qaudio.models import registry
from qaudio.models.base import AudioModel
from qaudio.models.image import timm_name
from qaudio.models.registry import OWN, architectures, create_model, from_config
from tests.support.networks import same_state

TWINS = [name for own in OWN if own.quaternion for name in (*own.names, *own.quaternion)]


@pytest.mark.parametrize("arch", TWINS)
def test_every_known_name_is_built_with_its_width(arch) -> None:
    model = create_model(f"{arch}_006", num_classes=3)
    assert model.architecture == f"{arch}_006"
    assert model.quaternion == arch.startswith("q") == (model.frontend.channels == 4)
    assert model.frontend.config.kind == ("delta" if model.quaternion else "logmel")
    assert all(width % 4 == 0 for width in model.widths.values())
    for group in model.channel_groups():
        for name in group.producers:
            assert model.get_submodule(name).weight.shape[0] == model.widths[group.name]


@pytest.mark.parametrize("arch", [arch for arch in architectures() if arch not in TWINS])
def test_networks_made_with_timm_are_known(arch) -> None:
    if arch.startswith("timm:"):
        assert timm_name(arch) == arch.removeprefix("timm:")
    elif arch.startswith("mn"):
        assert create_model(arch, num_classes=3).frontend.config.kind == "efficientat"
    else:
        widths = create_model(arch, num_classes=3).widths
        width = {"ast_tiny": 192, "ast_small": 384, "ast_base": 768}[arch]
        assert widths == {f"blocks.{n}.mlp.fc1": 4 * width for n in range(12)}


def test_a_new_network_is_in_training_mode() -> None:
    for arch in ("cnn6_006", "ast_tiny", "timm:test_convnext"):
        assert all(module.training for module in create_model(arch, num_classes=2).modules())


def test_a_transformers_patches_overlap_where_its_name_says_so() -> None:
    plain, close = (create_model(arch, num_classes=2) for arch in ("ast_tiny", "ast_tiny_s10"))
    assert plain.patches.stride == (16, 16) and close.patches.stride == (10, 10)
    assert plain.grid == (63, 4) and close.grid == (100, 6)  # ten seconds by 64 mels, all covered
    sound = create_model("ast_tiny", num_classes=2, frontend={"n_mels": 128, "hop_length": 640})
    assert sound.grid == (32, 8)


@torch.no_grad()
def test_a_transformers_positions_follow_the_clips_length() -> None:
    model = create_model("ast_tiny", num_classes=2).eval()
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.nn.init.zeros_(model.patches.weight)
    torch.nn.init.zeros_(model.patches.bias)
    time = torch.linspace(-1, 1, 63)[:, None, None]  # a table that rises along time
    model.positions.copy_(time.expand(63, 4, 192).reshape(1, 252, 192))
    for seconds, columns in ((10, 63), (3, 19), (31, 194)):
        model(torch.zeros(1, 32000 * seconds))
        rising = seen[-1].reshape(columns, 4, 192)[:, 0, 0]
        assert (rising.diff() > 0).all()
        assert rising[0] < -0.9 and rising[-1] > 0.9


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:nope", "timm .* has no network 'nope'; timm.list_models"),
        ("timm:mobilenetv3_smal", "similar: timm:mobilenetv3_small_"),
        ("timm:", "has no network ''; timm.list_models"),
        ("timm:hf-hub:timm/resnet18.a1_in1k", "has no network"),
        ("timm:resnet18.a1_in1k", "names pretrained weights; give timm:resnet18"),
        ("timm:vit_tiny_patch16_224", "does not take clips of any length .*ast_tiny"),
        ("ast_big", "unknown architecture 'ast_big'; similar: ast_tiny"),
        ("ast_tiny_s17", "unknown architecture 'ast_tiny_s17'"),
        ("ast_tiny_s0", "unknown architecture"),
        ("qcn10", "unknown architecture 'qcn10'; similar: qcnn10"),
        ("qcnn10_050.esc10", r"are loaded: qaudio\.load\('qcnn10_050\.esc10'\), or `source`"),
    ],
)
def test_a_mistaken_name_is_answered_with_similar_ones(name, message) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(name, num_classes=2)


@pytest.mark.parametrize(
    ("arch", "settings", "message"),
    [
        ("timm:test_convnext", {"frontend": {"n_mels": 16}}, "n_mels of at least 32, not 16"),
        ("timm:test_convnext", {"widths": {"stem": 8}}, "missing or unknown: .*stem"),
        ("ast_tiny", {"frontend": {"n_mels": 15}}, "n_mels of at least 16, not 15"),
        ("ast_tiny", {"num_classes": 0}, "num_classes must be a positive integer"),
    ],
)
def test_what_networks_made_with_timm_cannot_be_is_refused(arch, settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(arch, **({"num_classes": 2} | settings))


def test_layers_without_a_width_have_the_architectures_and_files_name_all() -> None:
    whole = create_model("qcnn10_025", num_classes=2)
    narrower = create_model("qcnn10_025", num_classes=2, widths={"fc1": 64})
    assert narrower.widths == whole.widths | {"fc1": 64} and narrower.num_features == 64
    config = narrower.config.to_dict()
    del config["widths"]["fc1"]
    with pytest.raises(ValueError, match=r"missing or unknown: \['fc1'\]"):
        from_config(config)


def test_widths_are_the_familys_times_the_multiplier() -> None:
    half = create_model("qcnn10_050", num_classes=2).widths
    assert list(half) == [f"conv_block{b}.conv{c}" for b in (1, 2, 3, 4) for c in (1, 2)] + ["fc1"]
    assert list(half.values()) == [32, 32, 64, 64, 128, 128, 256, 256, 256]
    odd = create_model("cnn6_013", num_classes=2).widths
    assert list(odd.values()) == [8, 16, 32, 68, 68]  # multiples of 4 nearest 8.3, 16.6, …


@pytest.mark.parametrize(
    "name", ["resnet99", "QCNN10", "cnn10_000", "cnn10_5", "cnn10_1000", "cnn", "cnn10 ", "", "qq"]
)
def test_unknown_names_are_refused_with_the_known_ones(name) -> None:
    with pytest.raises(ValueError) as error:
        create_model(name, num_classes=2)
    message = str(error.value)
    assert repr(name) in message
    assert all(known in message for known in (*architectures(), "qcnn10_050"))


@pytest.mark.parametrize("number", [0, -1, 2.0, True, "10", None])
def test_numbers_of_classes_that_are_none_are_refused(number) -> None:
    with pytest.raises(ValueError, match="num_classes must be a positive integer"):
        create_model("cnn6_006", num_classes=number)


def widths_of(arch: str) -> dict[str, int]:
    return create_model(arch, num_classes=2).widths


def test_given_widths_are_used() -> None:
    widths = widths_of("qcnn6_025") | {"conv_block2.conv1": 12, "fc1": 40}
    model = create_model("qcnn6_025", num_classes=2, widths=dict(reversed(widths.items())))
    assert model.widths == widths and list(model.widths) == list(widths)
    assert model.conv_block2.conv1.weight.shape[0] == 12
    assert model.conv_block3.conv1.in_channels == 12
    assert model.classifier.in_features == 40
    real = create_model("cnn6_025", num_classes=2, widths=widths_of("cnn6_025") | {"fc1": 3})
    assert real.classifier.in_features == 3  # only quaternion nets need multiples of 4


@pytest.mark.parametrize("width", [0, -4, 6, 4.0, True, "8", None, 1 << 20])
def test_bad_widths_are_refused(width) -> None:
    widths = widths_of("qcnn6_025") | {"conv_block2.conv1": width}
    with pytest.raises(ValueError, match=r"conv_block2\.conv1 must be a multiple of 4 from 4 to"):
        create_model("qcnn6_025", num_classes=2, widths=widths)


def test_widths_must_name_the_layers() -> None:
    widths = widths_of("cnn6_025") | {"conv_block9.conv1": 8}
    with pytest.raises(ValueError, match=r"must name its layers; missing or unknown.*conv_block9"):
        create_model("cnn6_025", num_classes=2, widths=widths)


def test_frontend_is_taken_whole_or_in_part() -> None:
    part = create_model("qcnn6_006", num_classes=2, frontend={"n_mels": 32})
    assert part.frontend.config == FrontendConfig(kind="delta", n_mels=32)
    whole = FrontendConfig(kind="published", hop_length=500)
    assert create_model("qcnn6_006", num_classes=2, frontend=whole).frontend.config == whole


@pytest.mark.parametrize(
    ("frontend", "message"),
    [
        ({"kind": "logmel"}, "qcnn6_006 takes a four-channel front-end .*'logmel'"),
        ({"kind": "mfcc"}, "frontend kind must be one of"),
        ({"mels": 64}, "unknown frontend settings: mels"),
        ({"n_mels": 0}, "n_mels must be a positive integer"),
    ],
)
def test_bad_frontends_are_refused(frontend, message) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("qcnn6_006", num_classes=2, frontend=frontend)


def test_real_nets_take_a_four_channel_frontend_too() -> None:
    model = create_model("cnn6_006", num_classes=2, frontend={"kind": "delta"}).eval()
    assert model.conv_block1.conv1.in_channels == 4
    assert model(torch.zeros(1, 8000)).shape == (1, 2)


def test_a_config_without_the_optional_keys_is_enough() -> None:
    config = create_model("cnn6_006", num_classes=2).config.to_dict()
    for key in ("labels", "task", "eval_seconds"):
        del config[key]
    model = from_config(config)
    assert (model.labels, model.task, model.eval_seconds) == (None, "multiclass", None)


def test_same_seed_same_network() -> None:
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(create_model("qcnn6_025", num_classes=2))
    assert same_state(models[0], models[1])
    assert not same_state(models[0], models[2])


class Mine(AudioModel):
    def __init__(self, config) -> None:
        super().__init__(config)
        self.conv = torch.nn.Conv2d(self.frontend.channels, config.widths["conv"], 3)
        self.classifier = torch.nn.Linear(config.widths["conv"], config.num_classes)

    def embed_features(self, features):
        return self.head_dropout(self.conv(features).relu().mean((2, 3)))


@pytest.fixture
def register(registries):
    """`register`, undone after the test."""
    return registry.register


def test_a_registered_architecture_is_built_and_rebuilt_by_name(register) -> None:
    assert register("mine", widths={"conv": 8})(Mine) is Mine
    assert registry.architectures()[-1] == "mine"
    model = create_model("mine", num_classes=3)
    assert model.frontend.config.kind == "logmel"
    assert from_config(model.config).config == model.config
    narrow = create_model("mine", num_classes=3, widths={"conv": 4})
    assert narrow.conv.out_channels == 4
    with pytest.raises(ValueError, match="width of mine's conv must be"):
        create_model("mine", num_classes=3, widths={"conv": 0})
    with pytest.raises(ValueError, match="mine cannot be pruned: it names no channel groups"):
        model.channel_groups()


def test_a_registered_quaternion_architecture_has_their_front_end(register) -> None:
    register("qmine", Mine, widths={"conv": 8}, quaternion=True)
    model = create_model("qmine", num_classes=2)
    assert model.conv.in_channels == 4 and model.quaternion
    with pytest.raises(ValueError, match="must be a multiple of 4"):
        create_model("qmine", num_classes=2, widths={"conv": 6})
    stored = model.config.to_dict() | {"quaternion": False}
    with pytest.raises(ValueError, match="quaternion is False, but qmine is registered with True"):
        from_config(stored)


def test_sizes_of_a_registered_architecture_share_a_pattern(register) -> None:
    def widths(name):
        return {"conv": int(name.split("_")[1])}

    register("mine_8", Mine, pattern=r"mine_\d+", widths=widths)
    assert create_model("mine_12", num_classes=2).conv.out_channels == 12
    with pytest.raises(ValueError, match="unknown architecture 'mine_x'; similar: mine_8"):
        create_model("mine_x", num_classes=2)


@pytest.mark.parametrize(
    "name", ["cnn14", "qcnn10_050", "ast_tiny_s10", "timm:resnet18", "", "Mine"]
)
def test_names_that_are_taken_or_malformed_are_not_registered(name) -> None:
    with pytest.raises(ValueError, match=r"qaudio's own architectures|use lower-case letters"):
        registry.register(name, Mine)


def test_own_names_are_what_their_modules_register() -> None:
    found = registry.registered()
    for own in OWN:
        for name in (*own.names, *own.quaternion):
            (known,) = [one for one in found if re.fullmatch(one.pattern, name)]
            assert known.build.__module__ == own.module
            assert known.quaternion == (name in own.quaternion)
            assert registry.is_quaternion(name) == known.quaternion
    modules = {own.module for own in OWN}
    listed = {name for own in OWN for name in (*own.names, *own.quaternion)}
    assert {one.name for one in found if one.build.__module__ in modules} <= listed


@pytest.mark.parametrize("name", ["qcnn10_050", "qresnet38_025", "qcnn14"])
def test_configs_that_do_not_say_are_quaternion_by_registration(name) -> None:
    assert registry.is_quaternion(name)
    assert not registry.is_quaternion(name.removeprefix("q"))
    assert not registry.is_quaternion("qwavenet")
    assert not registry.is_quaternion(name, False)
