"""A weight matrix that multiplies few rows fast: drawing waits for its memory.

A step of drawing multiplies every matrix of the model with one row a document and guidance branch.
The time is that of reading the matrix, if the library's kernel does not waste it. On a CPU, what is
here reads the same values in another order, or the int8 that they were kept as, a quarter of the
bytes; on a GPU, ``few_rows.py`` does.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from unimm.nn import few_rows

FEW_ROWS = 3
"""Rows up to which the matrix had better stand on the left (measured; from 4 on it depends)."""
FEW_INT8_ROWS = 16
"""Rows up to which int8 is faster than float32 with AVX2 as well as with AVX-512 (measured)."""

# PyTorch's int8 kernel is written for these; elsewhere it is slower than float32.
_INT8_CPUS = ("AVX2", "AVX512")
_int8_product = cast(Any, getattr(torch, "_weight_int8pack_mm", None))


class _Int8(NamedTuple):
    """The same matrix in fewer bytes, and of which state of the weight it is the copy."""

    codes: Tensor  # (out, in) int8
    scales: Tensor  # (out,) bfloat16
    state: tuple[int, int]


class Linear(nn.Linear):
    """A product with a matrix, ``(..., in)`` to ``(..., out)``, without bias.

    Its weight and gradient are those of ``nn.Linear``; only float32 on a CPU and inference on a GPU
    go other ways, and only for few rows, so that training and reading prompts are as ever.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)
        self._int8: _Int8 | None = None

    @property
    def is_int8(self) -> bool:
        """Whether few rows are multiplied with int8, the activations rounded to bfloat16."""
        return self._int8 is not None and self._int8.state == self._state()

    def keep_int8(self, codes: Tensor, scales: Tensor) -> None:
        """Multiply few rows on a CPU with int8 from now on, until the weight changes.

        Args:
            codes: ``(out, in)`` int8.
            scales: ``(out,)`` bfloat16; codes times scales must be the weight.
        """
        assert codes.shape == self.weight.shape, (codes.shape, self.weight.shape)
        self._int8 = _Int8(codes.contiguous(), scales.contiguous(), self._state())

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in)`` to ``(..., out)``."""
        weight = self.weight
        if few_rows.can_multiply(x, weight):
            return few_rows.multiply(x, weight)
        if x.device.type != "cpu" or x.dtype != torch.float32 or weight.dtype != x.dtype:
            return functional.linear(x, weight)
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) <= FEW_INT8_ROWS and not torch.is_grad_enabled() and self.is_int8:
            assert self._int8 is not None
            out = _int8_product(rows.bfloat16(), self._int8.codes, self._int8.scales).float()
        elif 0 < len(rows) <= FEW_ROWS:
            # The library's kernels for one row, and for a few rows on the left, read a matrix at a
            # fraction of the memory's speed (MKL on AMD, measured at widths from 448 to 4096).
            few = torch.cat([rows, rows]) if len(rows) == 1 else rows
            out = torch.mm(weight, few.t()).t()[: len(rows)].contiguous()
        else:
            return functional.linear(x, weight)
        return out.reshape(*x.shape[:-1], -1)

    def _state(self) -> tuple[int, int]:
        weight = self.weight  # one made in inference mode counts no versions
        return weight.data_ptr(), 0 if weight.is_inference() else weight._version


def has_int8_kernel() -> bool:
    """Whether this CPU, by PyTorch, multiplies few rows with int8 faster than with float32."""
    is_known = torch.backends.cpu.get_cpu_capability() in _INT8_CPUS
    return _int8_product is not None and is_known
