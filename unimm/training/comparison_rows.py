"""What the comparison with other programs times, row by row, ours and theirs in turns."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from unimm.evaluation import peer_programs
from unimm.evaluation.ceilings import measure_ceilings, measure_held_flops, seconds_of
from unimm.evaluation.drawing_pairs import our_drawing, our_head, our_share, shrunk
from unimm.evaluation.random_models import SIZES, RandomModel, random_pipeline
from unimm.evaluation.side_by_side import Apart, Program, in_turns
from unimm.evaluation.speed import add_launches
from unimm.training.step_speed import MeasuredStep, interleaved_rows, measured_step, picture_rows

Row = dict[str, float]
Found = Iterator[tuple[str, str, Row]]
"""Table, name of the row, figures: one after the other, so that each can be kept at once."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where and how rows are timed.

    Attributes:
        sources: folder of the other programs' code.
        device: to run on.
        turns: of each program.
        tiny: small models, to try it out.
        batch_sizes: pictures drawn at once.
    """

    sources: Path
    device: torch.device
    turns: int = 3
    tiny: bool = False
    batch_sizes: tuple[int, ...] = (1, 64)

    def time(self, ours: Program, peer: Callable[..., Program], **options: Any) -> Row:
        """Time a pair; ``peer`` takes the folder of sources and makes the other in its process."""
        make = partial(peer, self.sources, device=self.device)
        with Apart(make, device=self.device) as theirs:
            return in_turns(ours, theirs, device=self.device, turns=self.turns, **options)

    def size(self, name: str) -> RandomModel:
        """Sizes of a model."""
        return shrunk(SIZES[name]) if self.tiny else SIZES[name]


def drawing(setting: Setting, *, name: str, rival: str, peer: Callable[..., Program]) -> Found:
    """Drawing pictures whole, and how near ours comes to what the device can do.

    Args:
        setting: where and how.
        name: of our size.
        rival: of the other program.
        peer: makes it.
    """
    sizes, ours = setting.size(name), random_pipeline(setting.size(name), device=setting.device)
    label = name.replace("var-", "next-scale ")
    shares: dict[int, Row] = {}
    for count in setting.batch_sizes:
        found = setting.time(
            our_drawing(ours, sizes.sampling, batch_size=count),
            partial(peer, batch_size=count, tiny=setting.tiny),
            per_call=count,
            calls=3,
        )
        yield "drawing", f"{label} and {rival}, batch {count}", found
        shares[count] = our_share(ours, sizes.sampling, batch_size=count)
    add_launches(shares, ours, sizes.sampling)
    for count, row in shares.items():
        yield "shares", f"{label}, batch {count}", row


def head(setting: Setting) -> Found:
    """MAR-B's head, each evaluation of as many positions: 4 a picture, as its 64 steps take."""
    num_steps = 2 if setting.tiny else peer_programs.MAR_STEPS
    for size in setting.batch_sizes:
        ours = our_head(setting.size("mar-b"), batch_size=size, grid_size=2, device=setting.device)
        theirs = partial(peer_programs.mar_head, num_tokens=4 * size, num_steps=num_steps)
        found = setting.time(ours, theirs, per_call=num_steps, calls=2)
        yield "heads", f"an evaluation of MAR-B's head, batch {size}", found


def denoiser(setting: Setting) -> Found:
    """DiT-XL/2's 50 steps."""
    size, grid = (1, 4) if setting.tiny else (8, 32)
    ours = our_head(
        setting.size("dit-xl/2"), batch_size=size, grid_size=grid, device=setting.device
    )
    theirs = partial(peer_programs.dit_denoise, batch_size=size, tiny=setting.tiny)
    found = setting.time(ours, theirs, per_call=size)
    yield "heads", f"DiT-XL/2's 50 steps, batch {size}, a picture", found


def masked(setting: Setting) -> Found:
    """A picture by MAR-B whole, 64 steps of its trunk without decoding, and one by us, decoded."""
    size, sizes = setting.batch_sizes[-1], setting.size("mar-b")
    ours = random_pipeline(sizes, device=setting.device)
    num_iter = 1 if setting.tiny else 64
    theirs = partial(peer_programs.mar_draw, batch_size=size, num_iter=num_iter)
    drawn = our_drawing(ours, sizes.sampling, batch_size=size)
    found = replace(setting, turns=1).time(drawn, theirs, per_call=size, num_warm=0)
    yield "drawing", f"diffusion head and MAR-B without decoding, batch {size}", found


def step_next_token(setting: Setting) -> Found:
    """A training step of 343M parameters, against LlamaGen-L compiled."""
    size = 2 if setting.tiny else 128
    rows = max(1, size // 8)
    ours = measured_step(
        setting.size("343M"),
        lambda p: [picture_rows(p, num_rows=rows, documents=size // rows)],
        device=setting.device,
    )
    theirs = partial(peer_programs.llamagen_step, batch_size=size, tiny=setting.tiny)
    found = setting.time(partial(ours.run, 0), theirs, per_call=size, calls=5)
    yield "steps", f"343M and LlamaGen-L compiled, {size} pictures", found
    yield "utilisation", f"343M, {size} pictures", _utilisation(setting, ours, found["ours"] * size)


def step_next_scale(setting: Setting) -> Found:
    """A training step of ten scales, against VAR-d16, at a batch of which both fit."""
    size = 2 if setting.tiny else 32
    ours = measured_step(
        setting.size("var-d16"),
        lambda p: [picture_rows(p, num_rows=size // 2, documents=2)],
        device=setting.device,
    )
    theirs = partial(peer_programs.var_step, depth=16, batch_size=size, tiny=setting.tiny)
    found = setting.time(partial(ours.run, 0), theirs, per_call=size, calls=5)
    yield "steps", f"next-scale d16 and VAR-d16, {size} pictures", found
    name = f"next-scale d16, {size} pictures"
    yield "utilisation", name, _utilisation(setting, ours, found["ours"] * size)


def step_775m(setting: Setting) -> Found:
    """A training step of 775M parameters against the products' ceiling."""
    size = 2 if setting.tiny else 128
    ours = measured_step(
        setting.size("775M"),
        lambda p: [picture_rows(p, num_rows=max(1, size // 8), documents=min(size, 8))],
        device=setting.device,
    )
    times = seconds_of(lambda: ours.run(0), setting.device, repeats=5, num_warm=3)
    found = _utilisation(setting, ours, 1000 * median(times))
    yield "utilisation", f"775M, {size} pictures", found


def packing(setting: Setting) -> Found:
    """Rows packed with interleaved documents of all lengths, and plain rows of one picture each."""
    rows, length = (1, 256) if setting.tiny else (16, 2064)
    sizes = setting.size("343M")
    plain = 2 if setting.tiny else rows * length // 258
    ours = measured_step(
        sizes,
        lambda p: [
            picture_rows(p, num_rows=plain, documents=1),
            interleaved_rows(p, num_rows=rows, row_length=length),
        ],
        device=setting.device,
    )
    found = in_turns(
        partial(ours.run, 1),
        partial(ours.run, 0),
        device=setting.device,
        turns=setting.turns,
        calls=5,
        num_warm=2,
    )
    cost = {"packed": found["ours"], "plain": found["theirs"]}
    yield (
        "packing",
        f"343M, {rows} x {length} positions",
        cost | {"packed over plain": float(f"{found['ours'] / found['theirs']:.4g}")},
    )


ROWS: dict[str, Callable[[Setting], Found]] = {
    "next_token": partial(
        drawing, name="343M", rival="LlamaGen-L compiled", peer=peer_programs.llamagen_draw
    ),
    **{
        f"next_scale_d{depth}": partial(
            drawing,
            name=f"var-d{depth}",
            rival=f"VAR-d{depth}",
            peer=partial(peer_programs.var_draw, depth=depth),
        )
        for depth in (16, 30)
    },
    "step_next_token": step_next_token,
    "step_next_scale": step_next_scale,
    "head": head,
    "denoiser": denoiser,
    "packing": packing,
    "step_775m": step_775m,
    "masked": masked,
}
"""In the order of what they tell: a run that is cut off has the first of them."""


def _utilisation(setting: Setting, step: MeasuredStep, milliseconds: float) -> Row:
    ceiling = measure_ceilings(setting.device, torch.bfloat16).flops_per_second
    seconds = 0.1 if setting.tiny else 3.0
    held = measure_held_flops(setting.device, torch.bfloat16, seconds=seconds)
    achieved = step.flops[0] / milliseconds * 1000
    return {
        "ms a step": float(f"{milliseconds:.4g}"),
        "TFLOP/s": float(f"{achieved / 1e12:.4g}"),
        "ceiling, TFLOP/s": float(f"{ceiling / 1e12:.4g}"),
        "share": float(f"{achieved / ceiling:.3g}"),
        "held ceiling, TFLOP/s": float(f"{held / 1e12:.4g}"),
        "share of it": float(f"{achieved / held:.3g}"),
    }
