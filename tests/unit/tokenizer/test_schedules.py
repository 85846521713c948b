"""One autoencoder, several code layouts: what the tokenizer gives, draws, learns and keeps."""

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from unimm.checkpoint.folder import (
    image_tokenizer_hash,
    load_image_tokenizer,
    save_image_tokenizer,
)
from unimm.distributed import _free_port
from unimm.document import ImageTokens
from unimm.tokenizer.autoencoder import AutoencoderConfig
from unimm.tokenizer.image import ImageTokenizer
from unimm.tokenizer.image_config import ImageTokenizerConfig
from unimm.tokenizer.schemes import QuantizerConfig

PYRAMID = "1-2-4-8"
SHARED, OWN = ("single", PYRAMID), (PYRAMID,)
CONFIG = ImageTokenizerConfig(
    autoencoder=AutoencoderConfig(widths=(16, 32), encoder_blocks=(1, 1), decoder_blocks=(1, 1)),
    quantizer=QuantizerConfig(codebook_size=64, dim=4),
    image_size=32,
)


def make(schedules: tuple[str, ...]) -> ImageTokenizer:
    torch.manual_seed(0)
    return ImageTokenizer(replace(CONFIG, schedules=schedules))


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("schedules", [SHARED, OWN])
def test_a_pyramids_codes_and_those_of_its_sum(schedules) -> None:
    tokenizer = make(schedules).eval()
    tokens = tokenizer.encode(pictures(2, 3, 32, 32), PYRAMID)
    assert [tuple(codes.shape) for codes in tokens.scale_codes] == [(2, n, n) for n in (1, 2, 4, 8)]
    total = tokenizer.sums(tokens.scale_codes)[:, -1]
    assert tokens.codes is not None and torch.equal(tokens.codes, tokenizer.quantize(total))
    drawn = tokenizer.decode(tokens)
    torch.testing.assert_close(drawn, tokenizer.decode_vectors(total))
    single = tokenizer.decode(ImageTokens(codes=tokens.codes))
    assert not torch.allclose(single, drawn)
    torch.testing.assert_close(tokenizer.decode(tokens[1]), drawn[1], atol=1e-5, rtol=0)


def test_another_size_takes_another_schedule() -> None:
    tokenizer = make(SHARED).eval()
    tokens = tokenizer.encode(pictures(1, 3, 16, 16), "1-2-4")
    assert tokenizer.decode(tokens).shape == (1, 3, 16, 16)
    with pytest.raises(ValueError, match="1-2-4-8 ends in 8x8 codes, but the picture has 4x4"):
        tokenizer.encode(pictures(1, 3, 16, 16), PYRAMID)


def test_without_a_pyramid_scales_are_refused() -> None:
    tokenizer = make(("single",)).eval()
    with pytest.raises(ValueError, match="trained on single only"):
        tokenizer.encode(pictures(1, 3, 32, 32), PYRAMID)
    with pytest.raises(ValueError, match="trained on single only"):
        tokenizer.decode(ImageTokens(scale_codes=(torch.zeros(1, 1, 1, dtype=torch.int64),)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedules": ()}, "one or more schedules"),
        ({"schedules": ("single", "single")}, "each once"),
        ({"schedules": ("single", "pyramid")}, "'pyramid' is no schedule"),
        ({"schedules": ("1-2-4",)}, "ends in 4x4 codes, but the picture has 8x8"),
        (
            {
                "schedules": SHARED,
                "quantizer": QuantizerConfig(name="bsq", codebook_size=64, dim=6),
            },
            "use the quantizer vq",
        ),
    ],
)
def test_bad_schedules_name_the_remedy(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **changes)


@pytest.mark.parametrize("schedules", [SHARED, OWN])
def test_codebooks_learn_what_they_see(schedules) -> None:
    tokenizer = make(schedules).train()
    pixels = pictures(9, 3, 32, 32)
    first = tokenizer(pixels, num_bypassed=2)
    first.quantizer_loss.backward()
    assert tokenizer.pyramid is not None
    assert all(p.grad is not None and p.grad.any() for p in tokenizer.pyramid.parameters())
    with torch.no_grad():
        for _ in range(60):
            last = tokenizer(pixels, num_bypassed=2)
    assert float(last.quantizer_loss) < 0.9 * float(first.quantizer_loss.detach())
    vectors = [quantizer.codebook_vectors for quantizer in tokenizer.codebooks]
    assert len(first.seen) == len(vectors) == (2 if schedules == OWN else 1)
    per_picture = 64 + 85 if schedules == SHARED else 2 * 85
    assert 7 * per_picture / 2 == pytest.approx(len(first.codes), rel=0.1)
    # Residuals are short, single-scale vectors of a copy codebook have length 1.
    lengths = vectors[0].norm(dim=1)
    assert lengths.min() < 0.8
    if schedules == OWN:
        torch.testing.assert_close(vectors[1].norm(dim=1), torch.ones(64))


def test_bypassed_pictures_are_decoded_from_latents() -> None:
    tokenizer = make(SHARED).eval()
    pixels = pictures(4, 3, 32, 32)
    with torch.no_grad():
        drawn = tokenizer.train()(pixels, num_bypassed=1).pixels
        latents = tokenizer.quantizer.to_latents(tokenizer.encoder(pixels[3:]))
        torch.testing.assert_close(drawn[3:], tokenizer.decoder(latents), atol=1e-5, rtol=0)


@pytest.mark.parametrize("schedules", [SHARED, OWN])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_folder_round_trip(tmp_path, schedules, precision) -> None:
    tokenizer = make(schedules).eval()
    kept = save_image_tokenizer(tokenizer, tmp_path, precision=precision)
    loaded = load_image_tokenizer(tmp_path)
    assert image_tokenizer_hash(kept) == image_tokenizer_hash(loaded)
    assert loaded.schedules == schedules
    latents = tokenizer.encode(pictures(2, 3, 32, 32)).latents
    assert latents is not None
    expected, found = (t.to_tokens(latents, PYRAMID) for t in (tokenizer, loaded))
    assert expected.codes is not None and found.codes is not None
    assert torch.equal(expected.codes, found.codes)
    for a, b in zip(expected.scale_codes, found.scale_codes, strict=True):
        assert torch.equal(a, b)


TWO_RANKS = """
import sys, torch
from unimm import distributed as d
from unimm.tokenizer.quantizer import Quantizer
from unimm.tokenizer.schemes import QuantizerConfig

if len(sys.argv) > 2:
    d.init_distributed("cpu")
torch.manual_seed(0)
quantizer = Quantizer(QuantizerConfig(codebook_size=32, dim=4, decay=0.5), is_residual=True)
for step in range(5):
    seen = torch.randn(64, 4, generator=torch.Generator().manual_seed(step))
    seen = seen.chunk(d.world_size())[d.rank()]
    quantizer.learn(seen, quantizer.nearest(seen.t()[None, :, :, None])[0, :, 0])
replaced = quantizer.replace_dead_codes(
    seen, min_share=0.5, generator=torch.Generator().manual_seed(7)
)
torch.save((quantizer.codebook_vectors, replaced), f"{sys.argv[1]}/{d.rank()}_{d.world_size()}.pt")
d.barrier()  # the first rank keeps the store: it must not leave before the other
d.shutdown()
"""


def test_ranks_keep_one_codebook(tmp_path) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    env = {key: value for key, value in os.environ.items() if key not in names}
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    ranks = [place | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    runs = [(rank, ["joined"]) for rank in ranks] + [({}, [])]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_RANKS, str(tmp_path), *words],
            env=env | extra | {"OMP_NUM_THREADS": "1"},
        )
        for extra, words in runs
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    first, second, alone = (torch.load(tmp_path / f"{x}.pt") for x in ("0_2", "1_2", "0_1"))
    assert torch.equal(first[0], second[0]) and first[1] == second[1] == alone[1] > 0
    # Living codes are the single process's; replaced ones come from the first rank's half.
    same = torch.isclose(first[0], alone[0], atol=1e-5).all(dim=1)
    assert int(same.sum()) >= 32 - alone[1]
