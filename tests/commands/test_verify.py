import qaudio
from tests.support.command import lines_of


def test_verify_says_what_it_checked(run, tiny_entry):
    result = run("verify", tiny_entry)
    assert (result.code, result.err) == (0, "")
    assert "files match their sha256" in result.out
    assert "probe logits" in result.out


def test_verify_names_the_changed_file_and_goes_on(run, tiny_entry, tmp_path, tiny_model):
    other = qaudio.save(tiny_model, tmp_path / "other.made")
    weights = bytearray((tiny_entry / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (tiny_entry / "model.safetensors").write_bytes(weights)
    result = run("verify", tiny_entry, other)
    assert result.code == 1
    (line,) = lines_of(result)
    assert "tiny.made: model.safetensors was changed" in line
    assert len(result.out.splitlines()) == 1
    assert "other.made" in result.out
