"""Other programs' own code, driven as their scripts do: LlamaGen, VAR, MAR and DiT, random weights.

Their sources are no part of this project: ``docs/performance.md`` says which commits to fetch. They
name their packages alike (``models``, ``diffusion``) and change PyTorch's settings and classes, so
each is made in a process of its own (``Apart``).
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unimm.evaluation.side_by_side import Program

_STD = 0.02
VAR_SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
MAR_STEPS = 100


def llamagen_draw(sources: Path, *, batch_size: int, device: torch.device, tiny: bool) -> Program:
    """LlamaGen-L's ``generate`` with ``--compile``, and its decoder, as ``sample_c2i_ddp.py``."""
    _find(sources / "LlamaGen")
    gpt: Any = importlib.import_module("autoregressive.models.gpt")
    generate: Any = importlib.import_module("autoregressive.models.generate").generate
    vq_models: Any = importlib.import_module("tokenizer.tokenizer_image.vq_model").VQ_models
    side = 4 if tiny else 16
    with device:
        model = gpt.GPT_models["GPT-B" if tiny else "GPT-L"](
            vocab_size=16384,
            block_size=side**2,
            num_classes=1000,
            cls_token_num=1,
            model_type="c2i",
        )
        decoder = vq_models["VQ-16"](codebook_size=16384, codebook_embed_dim=8).eval()
    _fill(model, decoder)
    model = model.to(device, torch.float32 if tiny else torch.bfloat16).eval()
    if not tiny:
        model = torch.compile(model, mode="reduce-overhead", fullgraph=True)
    labels = torch.randint(0, 1000, (batch_size,), device=device)

    @torch.no_grad()
    def run() -> None:
        codes = generate(
            model,
            labels,
            side**2,
            cfg_scale=4.0,
            cfg_interval=-1,
            temperature=1.0,
            top_k=2000,
            top_p=1.0,
            sample_logits=True,
        )
        pixels = decoder.decode_code(codes, [batch_size, 8, side, side])
        _to_host(127.5 * pixels + 128.0)

    _set(deterministic=True)
    return run


def llamagen_step(sources: Path, *, batch_size: int, device: torch.device, tiny: bool) -> Program:
    """LlamaGen-L's training step with its default ``torch.compile``, as ``train_c2i.py``."""
    _find(sources / "LlamaGen")
    gpt: Any = importlib.import_module("autoregressive.models.gpt")
    dropout = {"resid_dropout_p": 0.1, "ffn_dropout_p": 0.1, "token_dropout_p": 0.1}
    with device:
        model = gpt.GPT_models["GPT-B" if tiny else "GPT-L"](
            vocab_size=16384, block_size=256, num_classes=1000, model_type="c2i", **dropout
        )
    _fill(model)
    model.train()
    compiled = model if tiny else torch.compile(model)
    codes = torch.randint(0, 16384, (batch_size, 256), device=device)
    labels = torch.randint(0, 1000, (batch_size,), device=device)

    def loss() -> Tensor:
        return compiled(cond_idx=labels, idx=codes[:, :-1], targets=codes)[1]

    return _training(model, loss, device, max_norm=1.0)


def var_draw(
    sources: Path, *, depth: int, batch_size: int, device: torch.device, tiny: bool
) -> Program:
    """VAR's ``autoregressive_infer_cfg`` with its decoder, as ``demo_sample.ipynb``."""
    tokenizer, model = _var(sources, depth, device, tiny)
    for module in (tokenizer, model):
        module.eval().requires_grad_(False)
    labels = torch.randint(0, 1000, (batch_size,), device=device)
    dtype = torch.bfloat16 if tiny else torch.float16

    def run() -> None:
        with torch.inference_mode(), torch.autocast(device.type, dtype, cache_enabled=True):
            pixels = model.autoregressive_infer_cfg(
                B=batch_size, label_B=labels, cfg=4, top_k=900, top_p=0.95, g_seed=0
            )
            _to_host(255 * pixels)

    _set(deterministic=True)
    return run


def var_step(
    sources: Path, *, depth: int, batch_size: int, device: torch.device, tiny: bool
) -> Program:
    """VAR's training step as ``trainer.py``; the tokenizer's part of it is left out."""
    _, model = _var(sources, depth, device, tiny)
    model.train()
    count = sum(n * n for n in VAR_SCALES)
    labels = torch.randint(0, 1000, (batch_size,), device=device)
    inputs = torch.randn(batch_size, count - 1, 32, device=device)
    codes = torch.randint(0, 4096, (batch_size, count), device=device)

    def loss() -> Tensor:
        logits = model(labels, inputs)
        return nn.functional.cross_entropy(logits.view(-1, 4096), codes.view(-1))

    return _training(model, loss, device, max_norm=2.0)


def mar_head(
    sources: Path, *, num_tokens: int, device: torch.device, num_steps: int = MAR_STEPS
) -> Program:
    """MAR-B's head alone: its sampling loop over so many tokens and as many unguided ones."""
    _find(sources / "mar")
    _stay_on(device)
    diffloss: Any = importlib.import_module("models.diffloss").DiffLoss
    with device:
        head = diffloss(
            target_channels=16,
            z_channels=768,
            depth=6,
            width=1024,
            num_sampling_steps=str(num_steps),
        ).eval()
    _fill(head)
    told = torch.randn(2 * num_tokens, 768, device=device)

    @torch.no_grad()
    def run() -> None:
        with torch.autocast(device.type, _half(device)):
            head.sample(told, 1.0, 2.9)

    _set(benchmark=True)
    return run


def mar_draw(sources: Path, *, batch_size: int, device: torch.device, num_iter: int) -> Program:
    """MAR-B's ``sample_tokens`` as ``engine_mar.evaluate``, without the decoder."""
    _find(sources / "mar")
    _stay_on(device)
    build: Any = importlib.import_module("models.mar").mar_base
    with device:
        model = build(
            img_size=256,
            vae_stride=16,
            patch_size=1,
            vae_embed_dim=16,
            buffer_size=64,
            diffloss_d=6,
            diffloss_w=1024,
            num_sampling_steps=str(MAR_STEPS),
        ).eval()
    _fill(model)
    labels = torch.randint(0, 1000, (batch_size,), device=device)

    @torch.no_grad()
    def run() -> None:
        with torch.autocast(device.type, _half(device)):
            model.sample_tokens(
                bsz=batch_size, num_iter=num_iter, cfg=2.9, cfg_schedule="linear", labels=labels
            )

    _set(benchmark=True)
    return run


def dit_denoise(sources: Path, *, batch_size: int, device: torch.device, tiny: bool) -> Program:
    """DiT-XL/2's 50 steps as ``sample.py``, without the decoder: TF32, as shipped."""
    _find(sources / "DiT")
    build: Any = importlib.import_module("models").DiT_models["DiT-S/8" if tiny else "DiT-XL/2"]
    create: Any = importlib.import_module("diffusion").create_diffusion
    with device:
        model = build(input_size=32, num_classes=1000).eval()
    _fill(model)
    path = create("2" if tiny else "50")
    labels = torch.randint(0, 1000, (batch_size,), device=device)
    both = torch.cat([labels, torch.full_like(labels, 1000)])

    @torch.no_grad()
    def run() -> None:
        noise = torch.randn(batch_size, 4, 32, 32, device=device).repeat(2, 1, 1, 1)
        path.p_sample_loop(
            model.forward_with_cfg,
            noise.shape,
            noise,
            clip_denoised=False,
            model_kwargs={"y": both, "cfg_scale": 4.0},
            progress=False,
            device=device,
        )

    _set()
    return run


def _find(folder: Path) -> None:
    if not folder.is_dir():
        raise ValueError(f"no sources in {folder}: docs/performance.md says what to put there")
    sys.path.insert(0, str(folder.resolve()))


def _var(sources: Path, depth: int, device: torch.device, tiny: bool) -> tuple[Any, Any]:
    _find(sources / "VAR")
    build: Any = importlib.import_module("models").build_vae_var
    tokenizer, model = build(
        V=4096,
        Cvae=32,
        ch=32 if tiny else 160,
        share_quant_resi=4,
        device=str(device),
        patch_nums=VAR_SCALES,
        num_classes=1000,
        depth=2 if tiny else depth,
        shared_aln=False,
    )
    for parameter in tokenizer.parameters():  # left as the memory was
        torch.nn.init.normal_(parameter, std=_STD)
    _fill(model)
    return tokenizer, model


def _training(
    model: nn.Module, loss: Callable[[], Tensor], device: torch.device, *, max_norm: float
) -> Program:
    """Autocast over float32 weights, clipping, fused AdamW, as both programs train by default."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True
    )

    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            found = loss()
        found.backward()
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    _set()
    return run


def _set(*, deterministic: bool = False, benchmark: bool = False) -> None:
    """TF32 products, which all of them switch on, and what else a script sets."""
    cudnn: Any = torch.backends.cudnn
    cudnn.deterministic, cudnn.benchmark = deterministic, benchmark
    torch.backends.cuda.matmul.allow_tf32 = True


def _fill(*modules: nn.Module) -> None:
    """Nothing shall be timed on zeros, which some matrices begin as."""
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                if parameter.ndim > 1 and not bool(parameter.any()):
                    parameter.normal_(std=_STD)


def _half(device: torch.device) -> torch.dtype:
    return torch.float16 if device.type == "cuda" else torch.bfloat16


def _stay_on(device: torch.device) -> None:
    """MAR moves tensors with ``.cuda()``, whatever device its model is on."""
    if device.type == "cpu":
        torch.Tensor.cuda = lambda self, *_, **__: self  # pyright: ignore


def _to_host(pixels: Tensor) -> None:
    pixels.clamp(0, 255).permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()
