"""One optimizer step of an image tokenizer, and the figures between two lines of its log.

Shapes: B batch, H W picture.
"""

import time

import torch
from torch import Tensor

from unimm.data.images import PictureBatch
from unimm.metrics.codes import code_usage
from unimm.metrics.image import psnr
from unimm.tokenizer.losses import (
    PatchDiscriminator,
    PerceptualLoss,
    adaptive_weight,
    discriminator_loss,
    pixel_weights,
    reconstruction_loss,
)
from unimm.training.schedule import learning_rate_factor
from unimm.training.tokenizer_config import TokenizerTrainConfig
from unimm.training.tokenizer_state import (
    TokenizerState,
    update_average,
)


def to_pixels(pixels: Tensor, device: torch.device | str) -> Tensor:
    """Turn uint8 pictures into float32 pixels in [-1, 1] on a device, shape kept."""
    return pixels.to(device, non_blocking=True).float().div_(127.5).sub_(1.0)


class TrainStep:
    """A step of the tokenizer and, late in the training, of its discriminator.

    Args:
        config: the run.
        state: what the step changes.
        device: where it runs.
    """

    def __init__(
        self, config: TokenizerTrainConfig, state: TokenizerState, device: torch.device
    ) -> None:
        self.config, self.state, self.device = config, state, device
        self.reconstruction_loss = reconstruction_loss
        self.num_bypassed = int(config.bypass * config.batch_size)
        self.perceptual: PerceptualLoss | None = None
        if config.loss.perceptual > 0 and config.loss.perceptual_model is not None:
            self.perceptual = PerceptualLoss(config.loss.perceptual_model).to(device)
        if config.is_compiled:
            state.tokenizer.encoder.compile()
            state.tokenizer.decoder.compile()
            self.reconstruction_loss = torch.compile(reconstruction_loss)

    def __call__(self, batch: PictureBatch, progress: float) -> dict[str, Tensor]:
        """Learn from a batch.

        Args:
            batch: ``(B, 3, H, W)`` uint8 with the figures' mask.
            progress: share of the training that is done.

        Returns:
            ``loss``, ``drawn``, ``pixels``, ``mask`` (empty without one), ``codes`` on the device,
            and ``replaced``, the number of codes that were brought back to life.
        """
        config, state = self.config, self.state
        pixels = to_pixels(batch.pixels, self.device)
        mask = None if batch.mask is None else batch.mask.to(self.device, non_blocking=True)
        weight = None if mask is None else pixel_weights(mask, config.loss.figure)
        self._set_learning_rate(progress)

        with self._autocast():
            output = state.tokenizer(pixels, num_bypassed=self.num_bypassed)
        # Losses on the pixels get their gradient at the pixels; the decoder is passed back once.
        drawn = output.pixels.detach().requires_grad_(True)
        loss = self.reconstruction_loss(drawn, pixels, weight, config.loss)
        if self.perceptual is not None:
            loss = loss + config.loss.perceptual * self.perceptual(drawn, pixels).mean()
        (gradient,) = torch.autograd.grad(loss, drawn)
        is_adversarial = progress >= config.loss.adversarial_start
        if state.discriminator is not None and is_adversarial:
            gradient = gradient + self._adversarial_gradient(state.discriminator, gradient, drawn)

        state.optimizer.zero_grad(set_to_none=True)
        roots, gradients = [output.pixels], [gradient]
        if output.quantizer_loss.requires_grad:  # FSQ has none
            roots.append(output.quantizer_loss)
            gradients.append(output.quantizer_loss.new_tensor(config.loss.commitment))
        torch.autograd.backward(roots, gradients)
        torch.nn.utils.clip_grad_norm_(state.tokenizer.parameters(), config.max_norm)
        state.optimizer.step()
        update_average(state.average, state.tokenizer, decay=config.average_decay, step=state.step)
        if state.discriminator is not None and is_adversarial:
            self._teach(state.discriminator, pixels, drawn.detach())
        return {
            "loss": loss.detach() + config.loss.commitment * output.quantizer_loss.detach(),
            "drawn": drawn.detach(),
            "pixels": pixels,
            "mask": mask if mask is not None else torch.empty(0),
            "codes": output.codes,
            "replaced": torch.tensor(self._replace(output.seen, progress)),
        }

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.is_mixed)

    def _set_learning_rate(self, progress: float) -> None:
        config = self.config
        factor = learning_rate_factor(
            progress, warmup=config.warmup, hold=config.hold, final=config.final
        )
        for optimizer in (self.state.optimizer, self.state.discriminator_optimizer):
            for group in optimizer.param_groups if optimizer else ():
                group["lr"] = config.learning_rate * factor

    def _adversarial_gradient(
        self, discriminator: PatchDiscriminator, gradient: Tensor, drawn: Tensor
    ) -> Tensor:
        with self._autocast():
            fooled = -discriminator(drawn).mean()
        (pull,) = torch.autograd.grad(fooled, drawn)
        return self.config.loss.adversarial * adaptive_weight(gradient, pull) * pull

    def _teach(self, discriminator: PatchDiscriminator, real: Tensor, drawn: Tensor) -> None:
        optimizer = self.state.discriminator_optimizer
        assert optimizer is not None
        with self._autocast():
            logits = discriminator(torch.cat([real, drawn]))
        optimizer.zero_grad(set_to_none=True)
        discriminator_loss(*logits.chunk(2)).backward()
        optimizer.step()

    def _replace(self, seen: tuple[Tensor, ...], progress: float) -> int:
        config, step = self.config, self.state.step + 1
        if step % config.replace_every or progress >= config.replace_until:
            return 0
        return sum(
            codebook.replace_dead_codes(
                vectors, min_share=config.replace_below, generator=self.state.generator
            )
            for codebook, vectors in zip(self.state.tokenizer.codebooks, seen, strict=True)
        )


class LogWindow:
    """Figures between two lines of the log; reads the device only when a line is written."""

    def __init__(self, config: TokenizerTrainConfig, device: torch.device) -> None:
        self.counts = torch.zeros(
            config.tokenizer.quantizer.codebook_size, dtype=torch.int64, device=device
        )
        self.num_coded = config.batch_size - int(config.bypass * config.batch_size)
        self.is_first = True
        self._restart()

    def _restart(self) -> None:
        self.counts.zero_()
        self.num_pictures, self.num_replaced = 0, 0
        self.started = time.monotonic()
        self.last: dict[str, Tensor] = {}

    def add(self, terms: dict[str, Tensor]) -> None:
        """Take in what a step gave."""
        codes = terms["codes"].flatten()
        self.counts.scatter_add_(0, codes, torch.ones_like(codes))
        if self.is_first:  # its seconds are compilation
            self._restart()
            self.is_first = False
        else:
            self.num_pictures += len(terms["pixels"])
        self.num_replaced += int(terms["replaced"])
        self.last = terms

    def close(self) -> dict[str, float]:
        """Give the figures of the window and begin the next; waits for the device."""
        n = self.num_coded  # PSNR through codes, as a trunk would draw
        drawn, pixels = self.last["drawn"][:n].clamp(-1, 1), self.last["pixels"][:n]
        figures = {"loss": float(self.last["loss"]), "psnr": float(psnr(drawn, pixels).mean())}
        if self.last["mask"].numel():
            inside = psnr(drawn, pixels, self.last["mask"][:n])
            figures["psnr_figures"] = float(inside.nanmean())
        usage = code_usage(self.counts)
        figures |= {"codes_used": usage.num_used, "perplexity": round(usage.perplexity, 1)}
        figures["codes_replaced"] = self.num_replaced
        seconds = time.monotonic() - self.started
        figures["images_per_second"] = round(self.num_pictures / max(seconds, 1e-9), 1)
        self._restart()
        return figures
