"""The serving application in a Ray of its own on this machine: what `kuberec run`, the demo and the tests start.

Binds 127.0.0.1 only. Ray runs in a child process, so that a program can start and stop it at will and so that Ray's
import and its environment variables do not touch the caller. One replica listens on the port itself (Ray Serve's direct
ingress: 0.1 ms a request instead of 4 ms through Serve's proxy); several are reached through the proxy.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from kuberec_api.model import RecModel
from kuberec_api.serving import RecServing
from kuberec_api.training import RecTraining

HOST = "127.0.0.1"


class ServingFailedError(Exception):
    """The application did not start; says where its log is."""


@dataclass
class LocalServing:
    """A running application; `url` is where it answers."""

    url: str
    name: str
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def rank_url(self) -> str:
        """Where to POST requests."""
        return f"{self.url}/v1/models/{self.name}:rank"

    def stop(self, timeout_s: float = 30.0) -> None:
        """Stops the application and its Ray."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_serving(
    serving: RecServing,
    model: RecModel,
    training: RecTraining,
    folder: Path | None = None,
    port: int | None = None,
    timeout_s: float = 240.0,
) -> LocalServing:
    """Starts the application for a training's publications and waits until it answers `/healthz`.

    Args:
        serving: the RecServing; its training is followed.
        model: the RecModel of the training.
        training: the training: where Redis is. The password is taken from KUBEREC_REDIS_PASSWORD.
        folder: for the arguments and the log; `.kuberec` under the working folder by default.
        port: a free one by default.
        timeout_s: how long to wait.

    Raises:
        ServingFailedError: it ended or did not answer in time.
    """
    if training.spec.publish is None:
        raise ServingFailedError(f"training '{training.metadata.name}' does not publish: set spec.publish.redis")
    folder = folder or Path(".kuberec")
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    arguments = {
        "model": model.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "serving": serving.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "redis": {"url": training.spec.publish.redis.url},
        "namespace": serving.metadata.namespace,
        "numCpus": 0,
        "threads": min(2, os.cpu_count() or 1),  # one computes features while the other is in the dense network
    }
    path, log = folder / "serving.json", folder / "serving.log"
    path.write_text(json.dumps(arguments))
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
    if serving.spec.replicas <= 1:
        environment |= _direct(port)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "kuberec_runtime.serve.local", str(path), str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    running = LocalServing(f"http://{HOST}:{port}", serving.metadata.name, log, process)
    try:
        _wait(running, timeout_s)
    except BaseException:
        running.stop(5.0)
        raise
    return running


def free_port() -> int:
    """Returns a port that is free on 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _direct(port: int) -> dict[str, str]:
    """Environment of a Serve whose only replica listens on `port`; a replacement gets the same port at once."""
    return {
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_LOG_TO_STDERR": "1",
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(port),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(port + 1),
        "RAY_SERVE_PORT_QUARANTINE_S": "0",
    }


def _wait(running: LocalServing, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if running.process.poll() is not None:
            raise ServingFailedError(f"serving ended with exit code {running.process.returncode}; see {running.log}")
        try:
            with urllib.request.urlopen(f"{running.url}/healthz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise ServingFailedError(f"serving did not answer within {timeout_s:g} s; see {running.log}")


def main(path: str, port: int) -> None:
    """Runs the application until SIGTERM or SIGINT."""
    import ray
    from ray import serve

    from kuberec_runtime.localray import start_local_ray
    from kuberec_runtime.serve.app import build

    arguments: dict[str, Any] = json.loads(Path(path).read_text())
    start_local_ray(num_cpus=2, log_to_driver=False, object_store_memory=80 * 2**20)
    quiet = {"enable_access_log": False, "log_level": "WARNING"}
    direct = "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT" in os.environ
    serve.start(http_options={"host": HOST, "port": free_port() if direct else port}, logging_config=quiet)
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    serve.run(build(arguments), name=arguments["serving"]["metadata"]["name"], route_prefix="/")
    print(f"serving on http://{HOST}:{port}", flush=True)
    signal.sigwait(stop)
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
