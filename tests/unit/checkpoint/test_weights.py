import pytest
import torch

from unimm.checkpoint.weights import (
    INDEX_FILE,
    WEIGHTS_FILE,
    read_weights,
    restore,
    store,
    write_weights,
)


def state_of(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "matrix": torch.randn(16, 24, generator=generator),
        "convolution": torch.randn(8, 4, 3, 3, generator=generator),
        "vector": torch.randn(24, generator=generator),
        "codebook": torch.randn(8, 4, generator=generator),
        "zeros": torch.zeros(3, 5),
        "count": torch.tensor([3]),
    }


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("float32", 0.0), ("bfloat16", 2**-8), ("int8", 0.02)]
)
def test_stored_weights_come_back(precision, tolerance):
    state = state_of()
    back = restore(store(state, precision, exact=("codebook",)))
    assert back.keys() == state.keys()
    for name in ("vector", "codebook", "zeros", "count"):
        assert torch.equal(back[name], state[name])
    for name in ("matrix", "convolution"):
        largest = state[name].abs().amax()
        assert (back[name] - state[name]).abs().max() <= tolerance * largest


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_channels_last_is_stored_as_any_other(precision, tmp_path):
    state = {"convolution": torch.randn(4, 6, 3, 3)}
    turned = {k: v.to(memory_format=torch.channels_last) for k, v in state.items()}
    write_weights(tmp_path, store(turned, precision))
    stored = read_weights(tmp_path)
    assert all(torch.equal(stored[k], v) for k, v in store(state, precision).items())


def test_weights_stay_until_new_ones_are_whole(tmp_path):
    state = store(state_of(), "float32")
    write_weights(tmp_path, state)
    with pytest.raises(ValueError, match="contiguous"):
        write_weights(tmp_path, {"matrix": torch.zeros(3, 4).T})
    assert read_weights(tmp_path).keys() == state.keys()
    write_weights(tmp_path, state, max_shard_bytes=2000)
    assert not (tmp_path / WEIGHTS_FILE).exists()
    assert read_weights(tmp_path).keys() == state.keys()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_storing_again_changes_nothing(precision):
    once = restore(store(state_of(), precision))
    twice = restore(store(once, precision))
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_int8_scales_are_per_row():
    rows = torch.randn(4, 64) * torch.tensor([1e-3, 1.0, 10.0, 1e3])[:, None]
    back = restore(store({"rows": rows}, "int8"))["rows"]
    error = (back - rows).abs().amax(1) / rows.abs().amax(1)
    assert error.max() < 0.01


def test_unknown_precision_names_the_known():
    with pytest.raises(ValueError, match="'int4'; known: float32, bfloat16, int8"):
        store(state_of(), "int4")  # type: ignore[arg-type]


def test_shards_stay_below_the_limit_and_hold_everything(tmp_path):
    state = store(state_of(), "float32")
    write_weights(tmp_path, state, max_shard_bytes=2500)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 1
    assert all(path.stat().st_size <= 2500 for path in files)
    back = read_weights(tmp_path)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_writing_again_leaves_no_old_files(tmp_path):
    write_weights(tmp_path, store(state_of(), "float32"), max_shard_bytes=2500)
    write_weights(tmp_path, store(state_of(1), "float32"))
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS_FILE]
    write_weights(tmp_path, store(state_of(1), "float32"), max_shard_bytes=2500)
    assert not (tmp_path / WEIGHTS_FILE).exists() and (tmp_path / INDEX_FILE).exists()


def test_missing_and_truncated_shards_are_named(tmp_path):
    write_weights(tmp_path, store(state_of(), "float32"), max_shard_bytes=2500)
    shard = sorted(tmp_path.glob("*.safetensors"))[0]
    content = shard.read_bytes()
    shard.write_bytes(content[:-100])
    with pytest.raises(ValueError, match=rf"{shard.name} .* truncated"):
        read_weights(tmp_path)
    shard.unlink()
    with pytest.raises(ValueError, match=rf"{shard.name} is missing"):
        read_weights(tmp_path)


def test_shard_of_another_model_is_named(tmp_path):
    write_weights(tmp_path, store(state_of(), "float32"), max_shard_bytes=2500)
    shards = sorted(tmp_path.glob("*.safetensors"))
    shards[0].write_bytes(shards[1].read_bytes())
    with pytest.raises(ValueError, match=rf"{shards[0].name} does not hold them"):
        read_weights(tmp_path)
