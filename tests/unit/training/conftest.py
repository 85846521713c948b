"""Training in the test's own process joins a group of one; other tests' processes must not."""

import os

import pytest

RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_joined: dict[str, str] = {}


@pytest.fixture(autouse=True, scope="module")
def ranks_stay_in_these_modules():
    """The group itself stays: DeepSpeed cannot join a second one in the same process."""
    os.environ.update(_joined)
    yield
    _joined.update({name: os.environ.pop(name) for name in RANKS if name in os.environ})
