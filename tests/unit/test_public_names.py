import pytest

import unimm

NAMES = {
    *("load_pipeline", "encode_image", "decode_image", "generate_image", "generate_story"),
    *("generate", "train", "TrainConfig", "load_config", "extract_features", "fit_probe"),
}


def test_public_names_are_there():
    assert set(dir(unimm)) >= NAMES
    assert all(callable(getattr(unimm, name)) for name in NAMES)


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="'unimm' has no attribute 'generate_storry'"):
        _ = unimm.generate_storry
