"""The decoder for drawing on a GPU: the same weights, convolutions without what lies between them.

PyTorch adds a convolution's bias in a pass of its own, and autocast upsamples in float32: together
with layouts and residuals they cost several times what the convolutions do.

Shapes: as in ``autoencoder``; all grids have their channels last in memory.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unimm.tokenizer.autoencoder import Decoder, ResidualBlock, SpatialAttention, Upsample
from unimm.tokenizer.fused_norm import Settled, apply_norm, settle, sum_channels

_ALIGNED = 32
"""To a multiple of this the last convolution's outputs are padded: from the 160 channels of VAR's
decoder the library takes 6 ms for 3, 8 or 16 of them, .4 ms for 32 (bfloat16 on an H200)."""


def draw(decoder: Decoder, vectors: Tensor) -> Tensor:
    """What ``decoder(vectors)`` gives, without gradients.

    Args:
        decoder: whose weights are used, in autocast's number format if that is on.
        vectors: ``(B, C, h, w)``.

    Returns:
        ``(B, 3, H, W)`` float32.
    """
    device = vectors.device.type
    is_cast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if is_cast else decoder.output.weight.dtype
    with torch.autocast(device, enabled=False):
        layers = list(decoder.layers)
        shown = vectors.to(dtype, memory_format=torch.channels_last)
        settled = Settled(shown, shown)
        for i, layer in enumerate(layers):
            is_doubled = isinstance(layers[i + 1], Upsample) if i + 1 < len(layers) else False
            settled = _run(layer, settled, is_doubled=is_doubled)
        return _draw_pixels(decoder, apply_norm(settled.x, settled.sums, decoder.norm))


def _run(layer: nn.Module, given: Settled, *, is_doubled: bool) -> Settled:
    """One layer of the decoder; before an ``Upsample`` it gives the doubled grid."""
    if isinstance(layer, ResidualBlock):
        hidden = _convolve(apply_norm(given.x, given.sums, layer.norm1), layer.conv1)
        bias = _bias(layer.conv1)
        sums = sum_channels(hidden, bias)
        hidden = _convolve(apply_norm(hidden, sums, layer.norm2, bias=bias), layer.conv2)
        return settle(hidden, _bias(layer.conv2), given.x, is_doubled=is_doubled)
    if isinstance(layer, SpatialAttention):
        mixed = _attend(layer, apply_norm(given.x, given.sums, layer.norm, has_silu=False))
        return settle(mixed, _bias(layer.output), given.x, is_doubled=is_doubled)
    convolution = layer.conv if isinstance(layer, Upsample) else layer
    assert isinstance(convolution, nn.Conv2d)
    hidden = _convolve(given.x, convolution)
    return settle(hidden, _bias(convolution), is_doubled=is_doubled)


def _convolve(x: Tensor, convolution: nn.Conv2d) -> Tensor:
    """Without the bias."""
    weight = convolution.weight.to(x.dtype, memory_format=torch.channels_last)
    found = F.conv2d(x, weight, padding=1)
    return found.contiguous(memory_format=torch.channels_last)  # as it is from all but odd shapes


def _attend(layer: SpatialAttention, normed: Tensor) -> Tensor:
    """The attention without the last bias: channels last, places are rows of a matrix."""
    batch, width, height, columns = normed.shape
    rows = normed.permute(0, 2, 3, 1).reshape(batch, height * columns, width)
    weights = [conv.weight.flatten(1).to(rows.dtype) for conv in (layer.qkv, layer.output)]
    qkv = F.linear(rows, weights[0], _bias(layer.qkv).to(rows.dtype))
    parts = qkv.view(batch, height * columns, 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = parts.unbind()  # (B, heads, h w, D / heads)
    mixed = F.scaled_dot_product_attention(query, key, value)
    rows = F.linear(mixed.transpose(1, 2).reshape(rows.shape), weights[1])
    return rows.view(batch, height, columns, width).permute(0, 3, 1, 2)


def _draw_pixels(decoder: Decoder, x: Tensor) -> Tensor:
    weight, bias = decoder.output.weight, _bias(decoder.output)
    padding = -len(weight) % _ALIGNED
    weight = F.pad(weight.to(x.dtype), (0, 0, 0, 0, 0, 0, 0, padding))
    weight = weight.contiguous(memory_format=torch.channels_last)
    x = F.conv2d(x, weight, padding=1)[:, : len(bias)]  # (B, 3 p p, H / p, W / p)
    return F.pixel_shuffle(x + bias.float()[:, None, None], decoder.patch_size)


def _bias(convolution: nn.Conv2d) -> Tensor:
    assert convolution.bias is not None
    return convolution.bias
