"""Where tests of our Triton kernels run: on a GPU, or interpreted on a CPU that has Triton."""

import os

import pytest
import torch

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if IS_INTERPRETED else "cuda"
KERNEL_MARKS = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not IS_INTERPRETED and not torch.cuda.is_available(), reason="needs a CUDA device"
    ),
]
