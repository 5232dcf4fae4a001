import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

import qaudio
from qaudio import cli
from qaudio.errors import EntryError
from qaudio.zoo.convert import convert_published, read_checkpoint, read_labels
from qaudio.zoo.store import read_config, trained_on
from tests.support import golden

COMPONENTS = ("r_weight", "i_weight", "j_weight", "k_weight")


def components(layer: str, *shape: int) -> dict[str, torch.Tensor]:
    return {f"{layer}.{leaf}": torch.randn(shape) for leaf in COMPONENTS}


def test_components_become_one_weight_with_rows_rijk() -> None:
    conv, linear = components("conv1", 2, 3, 5, 5), components("fc1", 3, 2)
    converted = convert_published({**dict(reversed(conv.items())), **linear})
    assert {name: tuple(t.shape) for name, t in converted.items()} == {
        "conv1.weight": (8, 3, 5, 5),
        "fc1.weight": (8, 3),
    }
    for n, leaf in enumerate(COMPONENTS):
        rows = slice(2 * n, 2 * n + 2)
        assert torch.equal(converted["conv1.weight"][rows], conv[f"conv1.{leaf}"])
        assert torch.equal(converted["fc1.weight"][rows], linear[f"fc1.{leaf}"].T)


def test_classifier_is_renamed_constants_are_left_out_and_the_rest_stays() -> None:
    kept = torch.randn(3)
    state = {
        "spectrogram_extractor.stft.conv_real.weight": torch.randn(2),
        "logmel_extractor.melW": torch.randn(2),
        "bn0.running_mean": kept,
        "fc_audioset.weight": torch.randn(4, 3),
        "fc_audioset.bias": torch.randn(4),
    }
    converted = convert_published(state)
    assert list(converted) == ["bn0.running_mean", "classifier.weight", "classifier.bias"]
    assert converted["bn0.running_mean"] is kept
    assert converted["classifier.bias"] is state["fc_audioset.bias"]


def test_incomplete_quaternion_layers_are_refused() -> None:
    state = components("block.conv1", 2, 3, 5, 5)
    del state["block.conv1.r_weight"]
    with pytest.raises(ValueError, match=r"'block\.conv1' lacks r_weight"):
        convert_published(state)
    state["block.conv1.r_weight"] = torch.randn(2, 3, 3, 3)
    with pytest.raises(ValueError, match=r"'block\.conv1' must have one shape"):
        convert_published(state)


# Checkpoint files, by the command.


@pytest.fixture
def labels(tmp_path) -> Path:
    """AudioSet's class_labels_indices.csv, with names of our own."""
    path = tmp_path / "class_labels_indices.csv"
    rows = [f'{n},/m/{n},"Sound {n}, made"\n' for n in range(527)]
    path.write_text("index,mid,display_name\n" + "".join(rows))
    return path


def run_import(capsys, *arguments) -> tuple[int, str]:
    capsys.readouterr()
    code = cli.main(["import", *map(str, arguments)])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("importer", "arch", "name"),
    [
        ("panns", "cnn6", "Cnn6"),
        pytest.param("panns", "cnn14", "Cnn14", marks=pytest.mark.slow),
        pytest.param("qpann", "qcnn14", "QCNN14", marks=pytest.mark.slow),
    ],
)
def test_imported_entries_give_the_outputs_of_the_authors_code(
    importer, arch, name, tmp_path, labels, capsys
) -> None:
    file, out = golden.published_file(name, tmp_path / "file.pth"), tmp_path / f"{arch}.audioset"
    code, err = run_import(
        capsys, importer, file, "--arch", arch, "--out", out, "--labels", labels,
        "--license", "cc-by-4.0",
    )  # fmt: skip
    assert (code, err) == (0, "")
    model = qaudio.load(out)
    golden.assert_outputs(model, name)
    assert model.frontend.config.kind == ("published" if importer == "qpann" else "logmel")
    assert (model.task, model.eval_seconds, model.num_classes) == ("multilabel", 10, 527)
    assert model.labels[3] == "Sound 3, made"
    assert read_config(out).license == "cc-by-4.0"
    assert trained_on(out) == ["AudioSet"]
    qaudio.verify(out)


@pytest.fixture(scope="module")
def cnn6_file(tmp_path_factory) -> Path:
    return golden.published_file("Cnn6", tmp_path_factory.mktemp("published") / "cnn6.pth")


class Payload:
    """Pickles as a call that creates a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


class Shell(Payload):
    """The same through os.system, which PyTorch blocks by name."""

    def __reduce__(self):
        import os

        return (os.system, (f"touch {self.target}",))


def in_zip(content: object) -> bytes:
    """PyTorch's zip format."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def in_old_format(content: object) -> bytes:
    """PyTorch's format before 1.6, in which the published files may be."""
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


@pytest.mark.parametrize("payload", [Payload, Shell])
@pytest.mark.parametrize("write", [pickle.dumps, in_zip, in_old_format])
def test_code_in_a_pickle_is_refused_and_not_run(payload, write, tmp_path, capsys) -> None:
    target, file = tmp_path / "written", tmp_path / "evil.pth"
    file.write_bytes(write({"iteration": 1, "model": {"x": payload(target)}}))
    code, err = run_import(capsys, "panns", file, "--arch", "cnn6", "--out", tmp_path / "out")
    assert code == 1
    (line,) = err.splitlines()
    said = "not a checkpoint of plain" if write is pickle.dumps else "refused, its pickle would run"
    assert line.startswith(f"qaudio: {file}: {said} ")
    assert not target.exists() and not (tmp_path / "out").exists()
    # The payload is a real one: an ordinary unpickler runs it.
    if write is pickle.dumps:
        pickle.loads(file.read_bytes())
    else:
        torch.load(file, weights_only=False)
    assert target.exists()


@pytest.mark.parametrize("share", [0, 0.0001, 0.5, 0.999])
@pytest.mark.parametrize("write", [in_zip, in_old_format])
def test_a_file_cut_short_is_one_line(share, write, tmp_path, capsys) -> None:
    whole = write({"iteration": 1, "model": {"x": torch.randn(10000)}})
    file = tmp_path / "cut.pth"
    file.write_bytes(whole[: int(share * len(whole))])
    code, err = run_import(capsys, "panns", file, "--arch", "cnn6", "--out", tmp_path / "out")
    assert code == 1
    (line,) = err.splitlines()
    assert line.startswith(f"qaudio: {file}: not a checkpoint of plain tensors")


def zip_of_text() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("notes.txt", "no tensors")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>404</html>", "not a checkpoint of plain tensors"),
        (b"RIFF\x00\x00\x00\x00WAVE", "not a checkpoint of plain tensors"),
        (zip_of_text(), "not a checkpoint of plain tensors"),
        (in_zip(torch.zeros(3)), "found Tensor with no keys"),
        (in_zip({"state_dict": {}}), "found dict with keys state_dict"),
        (in_zip({"iteration": 1, "model": [1]}), "found dict with keys iteration, model"),
        (in_zip({"iteration": 1, "model": {"x": 3}}), "'x' is int, not a tensor"),
        (in_zip({"iteration": 1, "model": {}}), "expected shape .*, found none"),
    ],
)
def test_what_is_no_published_checkpoint_is_one_line(content, message, tmp_path, capsys) -> None:
    file = tmp_path / "other.pth"
    file.write_bytes(content)
    code, err = run_import(capsys, "panns", file, "--arch", "cnn6", "--out", tmp_path / "out")
    assert code == 1
    (line,) = err.splitlines()
    assert line.startswith(f"qaudio: {file}: ")
    with pytest.raises(EntryError, match=message):
        if "expected shape" in message:
            raise EntryError(line)
        read_checkpoint(file)


def test_a_missing_file_is_one_line(tmp_path, capsys) -> None:
    file = tmp_path / "none.pth"
    code, err = run_import(capsys, "panns", file, "--arch", "cnn6", "--out", tmp_path / "out")
    assert (code, err) == (1, f"qaudio: {file}: no such file\n")


@pytest.mark.parametrize(
    ("importer", "arch", "named"),
    [
        ("panns", "cnn10", "conv_block1.conv1.weight: expected shape (64, 1, 3, 3), found "
         "(64, 1, 5, 5)"),
        ("qpann", "qcnn6", "conv_block2.conv1.weight: expected shape (128, 16, 5, 5), found "
         "(128, 64, 5, 5)"),
    ],
)  # fmt: skip
def test_another_networks_file_names_the_first_tensor_that_differs(
    importer, arch, named, cnn6_file, tmp_path, capsys
) -> None:
    arguments = (importer, cnn6_file, "--arch", arch, "--out", tmp_path / "out")
    code, err = run_import(capsys, *arguments)
    assert code == 1
    (line,) = err.splitlines()
    assert f"not {arch} as published: tensor {named}" in line
    assert not (tmp_path / "out").exists()


def _with(change):
    def changed(state):
        name = "bn0.running_var" if change == "negative" else "fc1.weight"
        tensor = state[name].clone()
        changes = {
            "nan": lambda: tensor.fill_(float("nan")),
            "infinite": lambda: tensor.double().fill_(1e300),
            "negative": lambda: tensor.fill_(-1.0),
            "integer": lambda: tensor.long(),
            "boolean": lambda: tensor > 0,
            "complex": lambda: tensor.to(torch.complex64),
            "sparse": lambda: tensor.to_sparse(),
            "compressed": lambda: tensor.to_sparse_csr(),
            "quantised": lambda: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
            "nested": lambda: torch.nested.nested_tensor([tensor[0], tensor[1]]),
            "empty": lambda: tensor.to("meta"),
            "repeated": lambda: torch.zeros(1, 1).expand(10**6, 10**6),
        }
        return state | {name: changes[change]()}

    return changed


@pytest.mark.filterwarnings("ignore:.*(nested|Sparse|sparse|quantiz|TypedStorage)")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("nan", "tensor fc1.weight holds NaN or infinite values"),
        ("infinite", "tensor fc1.weight holds NaN or infinite values"),
        ("negative", "tensor bn0.running_var holds negative variances"),
        ("integer", "tensor fc1.weight is of torch.int64, not floating point"),
        ("boolean", "tensor fc1.weight is of torch.bool, not floating point"),
        ("complex", "tensor fc1.weight is of torch.complex64, not floating point"),
        ("sparse", "tensor fc1.weight is sparse, quantised or nested, not dense"),
        ("compressed", "tensor fc1.weight is sparse, quantised or nested, not dense"),
        ("quantised", ""),
        ("nested", ""),
        ("empty", "tensor fc1.weight holds no values, it is on meta"),
        ("repeated", "tensor fc1.weight claims more values than the file holds"),
    ],
)
def test_tensors_that_are_no_weights_are_refused(cnn6_file, tmp_path, capsys, change, said) -> None:
    content = torch.load(cnn6_file, weights_only=True)
    content["model"] = _with(change)(content["model"])
    torch.save(content, tmp_path / "odd.pth")
    code, told = run_import(
        capsys, "panns", tmp_path / "odd.pth", "--arch", "cnn6", "--out", tmp_path / "out"
    )
    assert code == 1 and told.count("\n") == 1 and str(tmp_path / "odd.pth") in told
    assert said in told
    assert not (tmp_path / "out").exists()


def test_unknown_keys_are_named(cnn6_file, tmp_path, capsys) -> None:
    content = torch.load(cnn6_file, weights_only=True)
    content["model"] |= {f"extra{n}.weight": torch.zeros(1) for n in range(7)}
    torch.save(content, tmp_path / "more.pth")
    code, err = run_import(
        capsys, "panns", tmp_path / "more.pth", "--arch", "cnn6", "--out", tmp_path / "out"
    )
    assert code == 1
    assert "unknown keys extra0.weight, extra1.weight" in err
    assert err.endswith("extra4.weight and 2 more\n")


def test_the_entry_says_where_its_weights_come_from(cnn6_file, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert run_import(capsys, "panns", cnn6_file, "--arch", "cnn6", "--out", out)[0] == 0
    source = json.loads((out / "source.json").read_text())
    assert (source["file"], source["size"]) == ("cnn6.pth", cnn6_file.stat().st_size)
    config = read_config(out)
    assert (config.labels, config.license) == (None, None)
    assert cli.main(["info", str(out)]) == 0
    assert "file          cnn6.pth" in capsys.readouterr().out


def test_labels_are_read_by_their_index(labels, tmp_path) -> None:
    header, *rows = labels.read_text().splitlines()
    labels.write_text("\n".join([header, *reversed(rows)]))
    assert read_labels(labels)[:2] == ["Sound 0, made", "Sound 1, made"]


@pytest.mark.parametrize(
    "text", ["", "index,mid,display_name\n0,/m/0,Speech\n", "a,b\n1,2\n", "\0", None]
)
def test_labels_that_are_not_audiosets_are_refused(text, tmp_path) -> None:
    path = tmp_path / "labels.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(EntryError, match=r"labels\.csv: expected"):
        read_labels(path)


# EfficientAT's.


def efficientat_file(path: Path, arch: str = "mn01") -> tuple[Path, qaudio.AudioModel]:
    """A file in EfficientAT's names, and the network that it holds."""
    model = qaudio.create_model(arch, num_classes=527).eval()
    theirs = {
        "backbone.": "features.",
        "hidden.0.": "classifier.2.",
        "classifier.": "classifier.5.",
    }
    state = {}
    for name, tensor in model.state_dict().items():
        ours = next(prefix for prefix in theirs if name.startswith(prefix))
        name = theirs[ours] + name.removeprefix(ours)
        if ".fc1." in name or ".fc2." in name:
            name = name.replace(".fc", ".conc_se_layers.0.fc")
            tensor = tensor.flatten(1) if tensor.ndim == 4 else tensor
        state[name] = tensor
    torch.save(state, path)
    return path, model


def test_efficientats_files_are_imported(tmp_path, labels, capsys) -> None:
    file, model = efficientat_file(tmp_path / "mn01.pt")
    out = tmp_path / "mn01.audioset"
    code, err = run_import(
        capsys, "efficientat", file, "--arch", "mn01", "--out", out, "--labels", labels
    )
    assert (code, err) == (0, "")
    found = qaudio.load(out)
    with torch.inference_mode():
        assert torch.equal(found(golden.sounds()), model(golden.sounds()))
    assert (found.task, found.frontend.config.mel_scale) == ("multilabel", "kaldi")
    assert trained_on(out) == ["AudioSet"]
    qaudio.verify(out)


@pytest.mark.parametrize(
    ("arch", "said"),
    [("mn02", "not mn02 as published: tensor"), ("mn03", "efficientat has no 'mn03'")],
)
def test_efficientats_file_of_another_width_is_refused(arch, said, tmp_path, capsys) -> None:
    file, _ = efficientat_file(tmp_path / "mn01.pt")
    code, err = run_import(capsys, "efficientat", file, "--arch", arch, "--out", tmp_path / "out")
    assert code and said in err and not (tmp_path / "out").exists()


def test_a_wrapped_file_is_no_file_of_efficientats(tmp_path, cnn6_file, capsys) -> None:
    code, err = run_import(
        capsys, "efficientat", cnn6_file, "--arch", "mn01", "--out", tmp_path / "out"
    )
    assert code == 1 and "'iteration' is int, not a tensor" in err
