import numpy as np
import pytest
import torch
from pipelines import tiny_pipeline

from unimm.probes import cache as cache_module
from unimm.probes.cache import FeatureCache, FeaturesInMemory
from unimm.probes.features import FeatureSpec, feature_maps
from unimm.probes.sources import pipeline_features


def pictures(count: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def model():
    return pipeline_features(tiny_pipeline("diffusion"))


def test_features_are_kept(model, tmp_path):
    cache = FeatureCache(tmp_path, batch_size=3, show_progress=False)
    first = cache.maps(model, pictures(), FeatureSpec(), (0, -1))
    assert cache.num_extracted == 7
    wanted = feature_maps(model, pictures().float() / 127.5 - 1, FeatureSpec(), (0, 1))
    for a, b in zip(first, wanted, strict=True):
        assert a.shape == b.shape and np.allclose(a, b.numpy(), atol=2e-2, rtol=1e-2)
    again = FeatureCache(tmp_path, batch_size=3, show_progress=False)
    assert np.array_equal(again.maps(model, pictures(), FeatureSpec(), (1,))[0], first[1])
    assert again.num_extracted == 0


def test_memory_holds_what_the_disk_would(model, tmp_path):
    spec = FeatureSpec(num_noises=2, timestep=0.3)
    on_disk = FeatureCache(tmp_path, batch_size=3, show_progress=False)
    wanted = on_disk.maps(model, pictures(), spec, (0, -1))
    found = FeaturesInMemory(batch_size=3, show_progress=False).maps(
        model, pictures(), spec, (0, -1)
    )
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == torch.float16 and np.array_equal(a.numpy(), b)


def test_other_content_is_another_name(model, tmp_path):
    cache = FeatureCache(tmp_path, show_progress=False)
    cache.maps(model, pictures(), FeatureSpec(), (0,))
    changed = pictures()
    changed[3, 0, 0, 0] ^= 1
    fresh = model.randomise("denoiser", 1)
    for who, what, spec in (
        (model, changed, FeatureSpec()),
        (fresh, pictures(), FeatureSpec()),
        (model, pictures(), FeatureSpec(timestep=0.2)),
    ):
        before = cache.num_extracted
        cache.maps(who, what, spec, (0,))
        assert cache.num_extracted == before + 7


def test_a_killed_run_goes_on(model, tmp_path, monkeypatch):
    whole = FeatureCache(tmp_path / "a", batch_size=2, show_progress=False)
    wanted = whole.maps(model, pictures(), FeatureSpec(), (0, 1))
    real, calls = cache_module.feature_maps, 0

    def dies(*args):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(cache_module, "feature_maps", dies)
    with pytest.raises(KeyboardInterrupt):
        FeatureCache(tmp_path / "b", batch_size=2, show_progress=False).maps(
            model, pictures(), FeatureSpec(), (0, 1)
        )
    monkeypatch.setattr(cache_module, "feature_maps", real)
    cache = FeatureCache(tmp_path / "b", batch_size=2, show_progress=False)
    found = cache.maps(model, pictures(), FeatureSpec(), (0, 1))
    assert cache.num_extracted == 3  # of 7: four were on disk
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_layer_that_is_begun_again_does_not_count_as_done(model, tmp_path, monkeypatch):
    """Killed between making its file anew and writing into it."""
    cache = FeatureCache(tmp_path, batch_size=2, show_progress=False)
    (whole,) = cache.maps(model, pictures(), FeatureSpec(), (0,))
    wanted = np.array(whole)
    (mark,) = tmp_path.glob("*/layer_0.json")
    mark.write_text('{"done": 4}')  # as if it had been killed before

    real = np.lib.format.open_memmap

    def dies(*args, **options):
        real(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(np.lib.format, "open_memmap", dies)
    with pytest.raises(KeyboardInterrupt):
        cache.maps(model, pictures(), FeatureSpec(), (0, 1))
    monkeypatch.setattr(np.lib.format, "open_memmap", real)
    (found,) = cache.maps(model, pictures(), FeatureSpec(), (0,))
    assert np.array_equal(found, wanted)
