"""What a training under test depends on: a broker that gives out records at a pace, Redis, and an S3 that can fail."""

import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from kuberec_devcluster.services import S3, Kafka, Redis, ServerError
from tests.component.faulty_s3 import FaultyS3

UNLIMITED = 1 << 40
SMOOTH = {"quota.window.num": 2}
"""Quotas look back over two seconds instead of eleven, or records would come in bursts as long as that."""


class PacedKafka(Kafka):
    """A broker with a quota: a topic of some size lasts as long as is wanted, on a fast machine too."""

    def pace(self, bytes_per_s: int) -> None:
        """Limits what all consumers together read from now on; the limit survives restarts."""
        command = [*self._java(128), "kafka.admin.ConfigCommand", "--bootstrap-server", self.bootstrap, "--alter"]
        quota = ["--add-config", f"consumer_byte_rate={bytes_per_s}", "--entity-type", "clients", "--entity-default"]
        done = subprocess.run([*command, *quota], capture_output=True, text=True)
        if done.returncode != 0:
            raise ServerError(f"setting Kafka's quota failed:\n{done.stdout}{done.stderr}")


class Servers:
    """All of them, as a context manager."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._seed = folder, seed
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        with self._cleanup as cleanup:
            self.kafka = cleanup.enter_context(PacedKafka(self._folder / "kafka", settings=SMOOTH))
            self.redis = cleanup.enter_context(Redis(self._folder / "redis"))
            self.s3 = cleanup.enter_context(S3(self._folder / "s3"))
            self.proxy = FaultyS3(self.s3.endpoint, self._seed)
            cleanup.callback(self.proxy.close)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def store_environment(self, faulty: bool) -> dict[str, str]:
        """The environment that opens the store, through the proxy that fails or directly."""
        return {**self.s3.aws_environment, "AWS_ENDPOINT_URL": self.proxy.endpoint if faulty else self.s3.endpoint}
