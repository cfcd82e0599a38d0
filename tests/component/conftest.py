"""Servers that the tests of a run share: each is real, on a free loopback port, and dies with the run."""

from collections.abc import Iterator

import pytest

from kuberec_devcluster.services import Kafka, Redis


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    with Kafka() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    with Redis() as server:
        yield server
