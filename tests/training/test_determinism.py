import hashlib

from safetensors.torch import load_file

from qaudio.cli import main


def digest(path) -> str:
    """sha256 of a file's tensors."""
    whole = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        whole.update(name.encode() + tensor.numpy().tobytes())
    return whole.hexdigest()


def test_determinism_recipe_and_seed_give_the_weights_whatever_loads_the_clips(recipe, tmp_path):
    model = {"spec_augment": {}, "mixup": {"alpha": 0.3, "probability": 0.5}, "head_dropout": 0.3}
    arguments = recipe(model=None, data={"augment": {"roll": 0.5, "speed": 0.1}})
    arguments += [f"--model.{name}={value}".replace("'", '"') for name, value in model.items()]
    runs = {"first": [], "again": [], "loaded by two": ["--data.num_workers=2"],
            "another seed": ["--seed_everything=1"]}  # fmt: skip
    weights = {}
    for name, more in runs.items():
        folders = [f"--writer.folder={tmp_path / name}", f"--runs={tmp_path / name / 'runs'}"]
        assert main(["train", *arguments, *folders, *more]) == 0
        weights[name] = digest(tmp_path / name / "qcnn6_006.esc10" / "model.safetensors")
    assert weights["first"] == weights["again"] == weights["loaded by two"]
    assert weights["another seed"] != weights["first"]
