"""An S3 server (versitygw over a folder) on a free loopback port: signatures, multipart, conditional puts."""

import os
import urllib.error
import urllib.request
from pathlib import Path

from kuberec_devcluster import toolchain
from kuberec_devcluster.processes import LOOPBACK, LocalServer, free_port


class S3(LocalServer):
    """A real S3 endpoint with one bucket.

    Args:
        folder: where buckets live as folders; a temporary one without it.
        port: the port; a free one without it.
        hosts: addresses to listen on besides loopback.
        bucket: the bucket that exists from the start.
        access_key: the root user's name.
        secret_key: the root user's secret; it travels in the environment, not on the command line.
    """

    name = "s3"
    region = "us-east-1"

    def __init__(
        self,
        folder: Path | None = None,
        port: int | None = None,
        hosts: tuple[str, ...] = (),
        bucket: str = "kuberec",
        access_key: str = "kuberec",
        secret_key: str = "kuberec-local-only",
    ) -> None:
        super().__init__(folder)
        self.port = port or free_port()
        self.hosts = hosts
        self.bucket = bucket
        self.access_key = access_key
        self.secret_key = secret_key

    @property
    def endpoint(self) -> str:
        """`http://host:port`."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def options(self) -> dict[str, str]:
        """What `obstore.store.S3Store(bucket, **options)` takes to reach this server."""
        return {
            "endpoint": self.endpoint,
            "access_key_id": self.access_key,
            "secret_access_key": self.secret_key,
            "region": self.region,
        }

    @property
    def aws_environment(self) -> dict[str, str]:
        """The same as environment variables, for programs that read the usual AWS_ names."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_ALLOW_HTTP": "true",
        }

    def environment(self) -> dict[str, str]:
        return {"ROOT_ACCESS_KEY_ID": self.access_key, "ROOT_SECRET_ACCESS_KEY": self.secret_key}

    def prepare(self) -> None:
        (self.folder / "buckets" / self.bucket).mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        buckets = self.folder / "buckets"
        ports = [part for host in (LOOPBACK, *self.hosts) for part in ("--port", f"{host}:{self.port}")]
        metadata = [] if _keeps_attributes(buckets) else ["--sidecar", str(_folder(self.folder / "metadata"))]
        gateway = [
            str(toolchain.ensure("versitygw")),
            *ports,
            "--region",
            self.region,
            "--health",
            "/health",
            "--quiet",
        ]
        return [*gateway, "posix", *metadata, str(buckets)]

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.endpoint}/health", timeout=1) as reply:
                return bool(reply.status == 200)
        except (OSError, urllib.error.URLError):
            return False


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _keeps_attributes(folder: Path) -> bool:
    """Tells whether the file system stores extended attributes (an older tmpfs does not)."""
    try:
        os.setxattr(folder, "user.kuberec", b"1")
    except OSError:
        return False
    return True
