"""The image tokenizer's training loop: it learns, logs, saves, and goes on where it stopped."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from unimm.checkpoint.folder import load_image_tokenizer
from unimm.data.images import PictureBatch
from unimm.tokenizer.autoencoder import AutoencoderConfig
from unimm.tokenizer.image import ImageTokenizerConfig
from unimm.tokenizer.losses import LossConfig
from unimm.tokenizer.quantizer import QuantizerConfig
from unimm.training.tokenizer import train_image_tokenizer
from unimm.training.tokenizer_config import TokenizerTrainConfig

TINY = ImageTokenizerConfig(
    autoencoder=AutoencoderConfig(widths=(16, 32), encoder_blocks=(1, 1), decoder_blocks=(1, 1)),
    quantizer=QuantizerConfig(codebook_size=64, dim=4),
    image_size=16,
)


def squares(step: int, *, batch_size: int = 8, has_mask: bool = True) -> PictureBatch:
    """Coloured squares on plain grounds; batch ``step`` is always the same."""
    generator = torch.Generator().manual_seed(step)
    ground, colour = (
        torch.randint(0, 256, (batch_size, 3, 1, 1), generator=generator) for _ in range(2)
    )
    mask = torch.zeros(batch_size, 16, 16, dtype=torch.bool)
    for index, corner in enumerate(torch.randint(0, 10, (batch_size, 2), generator=generator)):
        row, column = corner.tolist()
        mask[index, row : row + 6, column : column + 6] = True
    pixels = torch.where(mask[:, None], colour, ground).to(torch.uint8)
    return PictureBatch(pixels, mask if has_mask else None)


def open_batches(step: int) -> Iterator[PictureBatch]:
    while True:
        yield squares(step)
        step += 1


def make_config(run_dir: Path, max_steps: int, loss: LossConfig | None = None):
    return TokenizerTrainConfig(
        run_dir=str(run_dir),
        tokenizer=TINY,
        loss=loss or LossConfig(),
        batch_size=8,
        max_steps=max_steps,
        learning_rate=3e-3,
        log_every=5,
        sample_every=20,
        save_every=5,
        replace_every=5,
    )


def train(config: TokenizerTrainConfig):
    torch.manual_seed(config.seed)
    return train_image_tokenizer(config, open_batches=open_batches, held_out=squares(10_000))


def read_log(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]


def test_it_learns_logs_and_leaves_a_tokenizer(tmp_path: Path) -> None:
    tokenizer = train(make_config(tmp_path, 80))
    log = read_log(tmp_path)
    lines = [line for line in log if "loss" in line]
    held_out = [line["held_out"] for line in log if "held_out" in line]
    assert lines[-1]["loss"] < 0.6 * lines[0]["loss"]
    assert held_out[-1]["psnr_figures"] > held_out[0]["psnr_figures"] + 1
    assert {"perplexity", "codes_used", "codes_replaced", "images_per_second"} <= lines[0].keys()
    assert (tmp_path / "samples" / "step_000080.png").is_file()
    loaded = load_image_tokenizer(tmp_path / "image_tokenizer")
    torch.testing.assert_close(loaded.latent_std, tokenizer.latent_std)
    assert not torch.equal(loaded.latent_std, torch.ones(4))


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    config = make_config(tmp_path / "whole", 30)
    whole = train(config)

    class Killed(Exception):
        pass

    def killed_batches(step: int) -> Iterator[PictureBatch]:
        for number in range(step, 17):
            yield squares(number)
        raise Killed

    parts = replace(config, run_dir=str(tmp_path / "parts"))
    torch.manual_seed(config.seed)
    with pytest.raises(Killed):
        train_image_tokenizer(parts, open_batches=killed_batches, held_out=squares(10_000))
    torch.manual_seed(123)  # the fresh weights are overwritten by the saved ones
    resumed = train_image_tokenizer(parts, open_batches=open_batches, held_out=squares(10_000))
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_another_architecture_does_not_resume(tmp_path: Path) -> None:
    train(make_config(tmp_path, 5))
    config = make_config(tmp_path, 10)
    wider = replace(config.tokenizer, quantizer=QuantizerConfig(codebook_size=128, dim=4))
    with pytest.raises(ValueError, match="another configuration"):
        train(replace(config, tokenizer=wider))


def test_the_adversarial_part_begins_late_and_stays_finite(tmp_path: Path) -> None:
    config = make_config(tmp_path, 10, LossConfig(adversarial=0.1, adversarial_start=0.5))
    train(config)
    assert all(line["loss"] < 10 for line in read_log(tmp_path) if "loss" in line)


@pytest.mark.parametrize(
    "quantizer",
    [
        QuantizerConfig(name="fsq", codebook_size=64, dim=2, levels=(8, 8)),
        QuantizerConfig(name="bsq", codebook_size=64, dim=6),
        QuantizerConfig(name="simvq", codebook_size=64, dim=4),
    ],
)
def test_every_quantizer_trains(tmp_path: Path, quantizer: QuantizerConfig) -> None:
    config = make_config(tmp_path, 60)
    train(replace(config, tokenizer=replace(TINY, quantizer=quantizer)))
    scores = [line["held_out"]["psnr"] for line in read_log(tmp_path) if "held_out" in line]
    assert scores[-1] > scores[0] + 0.5


@pytest.mark.parametrize("schedules", [("single", "1-2-4"), ("1-2-4",)])
def test_pyramids_train_by_one_setting(tmp_path: Path, schedules: tuple[str, ...]) -> None:
    config = make_config(tmp_path, 60)
    tokenizer = train(replace(config, tokenizer=replace(TINY, schedules=schedules)))
    scores = [line["held_out"] for line in read_log(tmp_path) if "held_out" in line]
    names = ["psnr", "1-2-4/psnr"][: len(schedules)]
    assert all(scores[-1][name] > scores[0][name] + 0.5 for name in names)
    loaded = load_image_tokenizer(tmp_path / "image_tokenizer")
    assert loaded.schedules == tokenizer.schedules == schedules
    whole = tokenizer.state_dict()
    part = replace(config, tokenizer=replace(TINY, schedules=schedules), max_steps=60)
    again = train(part)  # finished: read back and given again
    assert all(torch.equal(a, whole[name]) for name, a in again.state_dict().items())


def test_pictures_without_masks_train_too(tmp_path: Path) -> None:
    def plain(step: int) -> Iterator[PictureBatch]:
        while True:
            yield squares(step, has_mask=False)

    config = make_config(tmp_path, 5)
    train_image_tokenizer(config, open_batches=plain, held_out=squares(9, has_mask=False))
    assert all("psnr_figures" not in line for line in read_log(tmp_path))


def test_a_lost_loss_stops_the_run(tmp_path: Path) -> None:
    config = replace(make_config(tmp_path, 20), loss=LossConfig(l1=float("nan")))
    with pytest.raises(RuntimeError, match="loss is nan at step 5"):
        train(config)
