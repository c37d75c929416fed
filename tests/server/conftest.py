"""A decode process for a whole file of tests, and a house whose session is ready to be propagated."""

import pytest

from tests.server.house import House
from xmem_server.decoding import Decoder


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as decoder:
        yield decoder


@pytest.fixture
def house(tmp_path, decoder):
    with House(tmp_path, decoder) as house:
        house.ready()
        yield house
