"""Which part of the shards a process encodes, and settings that cannot be meant."""

import pytest

from unimm.data.encode_config import EncodeConfig, open_sources
from unimm.data.formats import FORMATS


def config(**changes):
    return EncodeConfig(output="out", image_tokenizer="tokenizer", **changes)


def test_the_part_is_that_of_the_flag_or_of_torchrun(monkeypatch):
    assert config().parts() == (0, 1)
    assert config(part="3/16").parts() == (3, 16)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert config().parts() == (2, 8) and config(part="0/2").parts() == (0, 2)


@pytest.mark.parametrize("part", ("2/2", "1", "a/b", "1/0", "-1/2"))
def test_a_part_that_is_none(part):
    with pytest.raises(ValueError, match="must be k/n with k from 0 to n-1"):
        config(part=part)


def test_sources_that_cannot_be_meant():
    web = FORMATS["jsonl"](files="x.jsonl")
    with pytest.raises(ValueError, match="either 'documents' or 'sources'"):
        config(documents="x.jsonl", sources={"web": web})
    with pytest.raises(ValueError, match=r"source '\.\./web' becomes a folder"):
        config(sources={"../web": web})
    with pytest.raises(ValueError, match="weight must be positive"):
        FORMATS["jsonl"](files="x.jsonl", weight=0.0)
    with pytest.raises(ValueError, match="no documents at 'x.jsonl'"):
        open_sources(config(sources={"web": web}))
