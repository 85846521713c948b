"""A training run in the test's own process leaves no process group behind."""

import os

import pytest

from unimm.distributed import shutdown


@pytest.fixture(autouse=True, scope="module")
def no_process_group_stays():
    before = dict(os.environ)
    yield
    shutdown()
    os.environ.clear()
    os.environ.update(before)
