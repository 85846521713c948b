"""Recorded functions, by CUDA itself and by PyTorch."""

import gc

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from unimm.nn import capture as capturing
from unimm.nn.capture import capture, new_pool
from unimm.nn.recorded import Recorder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DEVICE = torch.device("cuda", 0)


@pytest.fixture(params=["CUDA", "PyTorch"])
def way(request, monkeypatch):
    if request.param == "PyTorch":
        monkeypatch.setattr(capturing, "_runtime", lambda: None)
    elif capturing._runtime() is None:
        pytest.skip("cuda.bindings is not installed")
    return request.param


def test_a_recording_keeps_its_memory_and_gives_it_back(way):
    weight = torch.randn(512, 512, device=DEVICE) / 20
    recorder, x = Recorder(), torch.randn(4096, 512, device=DEVICE)

    def work(x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = (x @ weight).relu() + x
        return x

    with torch.inference_mode():
        expected = [work(x * scale) for scale in range(1, 5)]
        torch.cuda.synchronize()
        for scale, wanted in enumerate(expected, 1):
            torch.cuda.empty_cache()  # must not free what the recording writes to
            other = torch.full((1 << 26,), float("nan"), device=DEVICE)
            assert torch.equal(recorder.run("work", work, x * scale), wanted)
            assert other.isnan().all()
        del other
    held = torch.cuda.memory_allocated()
    del recorder
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() < held


def test_what_cannot_be_recorded_is_an_error_and_the_next_recording_works(way):
    x, pool = torch.ones(8, device=DEVICE), new_pool()

    def waits() -> None:
        (x + 1).tolist()

    with pytest.raises(RuntimeError, match="captur"):
        capture(waits, pool=pool, device=DEVICE)
    assert not torch.cuda.is_current_stream_capturing()
    launch, made = capture(lambda: x * 2, pool=new_pool(), device=DEVICE)
    x.fill_(3)
    launch()
    assert made.tolist() == [6.0] * 8


def test_nothing_runs_on_another_stream():
    if capturing._runtime() is None:
        pytest.skip("cuda.bindings is not installed")
    recorder, x = Recorder(), torch.ones(8, device=DEVICE)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for number in range(3):
            for _ in range(3):
                assert recorder.run(number, lambda x: x + 1, x).tolist() == [2.0] * 8
    assert len(recorder._graphs) == 3
    kernels = [x for x in seen.events() or () if str(x.device_type).endswith("CUDA")]
    assert len(kernels) >= 9 and len({x.device_resource_id for x in kernels}) == 1
    assert sum("GraphLaunch" in x.name for x in seen.events() or ()) == 6  # the profiler sees them
