"""Where progress goes: the resource's status on Kubernetes, a file or the terminal in local runs.

A sink never blocks training: the newest status waits in one slot and a thread writes it. Server-side apply by the field
manager `kuberec-runtime` means that every write names everything the driver owns, and nothing else.
"""

import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any, Protocol

from kuberec_api.meta import API_VERSION
from kuberec_api.training import RecTrainingStatus

FIELD_MANAGER = "kuberec-runtime"
PAUSE_S = 0.5
"""Between two writes, also when the API server refuses them and the driver waits for the last one."""
OWNED = {"conditions", "progress", "memory", "checkpoint", "publication", "monitors", "outcome"}

logger = logging.getLogger(__name__)


class StatusSink(Protocol):
    """Takes the driver's part of the status and tells what the user asked for meanwhile."""

    def write(self, status: RecTrainingStatus) -> None:
        """Hands a status over; returns at once."""

    def suspended(self) -> bool:
        """True once the user set `spec.suspend` or deleted the resource."""

    def close(self, timeout_s: float = 10.0) -> None:
        """Writes what still waits."""


def owned(status: RecTrainingStatus) -> dict[str, Any]:
    """The driver's part of a status, as JSON data."""
    body = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {key: value for key, value in body.items() if key in OWNED}


class TerminalStatus:
    """One log line for each write, and nothing to suspend."""

    def write(self, status: RecTrainingStatus) -> None:
        """See `StatusSink.write`."""
        if (p := status.progress) is not None:
            logger.info(
                "step %d  samples %d  %.0f samples/s  lag %s  loss %s  auc %s",
                *(p.step, p.samples, p.samples_per_second, p.lag, _short(p.loss), _short(p.auc)),
            )

    def suspended(self) -> bool:
        """See `StatusSink.suspended`."""
        return False

    def close(self, timeout_s: float = 10.0) -> None:
        """See `StatusSink.close`."""


class FileStatus:
    """The newest status as a JSON file, replaced atomically; the file `<path>.suspend` asks for a suspension."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, status: RecTrainingStatus) -> None:
        """See `StatusSink.write`."""
        waiting = self._path.with_suffix(".tmp")
        waiting.write_text(json.dumps(owned(status)))
        os.replace(waiting, self._path)

    def suspended(self) -> bool:
        """See `StatusSink.suspended`."""
        return self._path.with_name(self._path.name + ".suspend").exists()

    def close(self, timeout_s: float = 10.0) -> None:
        """See `StatusSink.close`."""


class KubernetesStatus:
    """Server-side apply on the status of one RecTraining, by a thread that also watches `spec.suspend`."""

    def __init__(self, namespace: str, name: str, period_s: float = 2.0) -> None:
        self._namespace, self._name, self._period = namespace, name, period_s
        self._slot: RecTrainingStatus | None = None
        self._lock = threading.Lock()
        self._wake, self._closing = threading.Event(), threading.Event()
        self._suspended = False
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)
        self._thread.start()

    def write(self, status: RecTrainingStatus) -> None:
        """See `StatusSink.write`."""
        with self._lock:
            self._slot = status.model_copy(deep=True)
        self._wake.set()

    def suspended(self) -> bool:
        """See `StatusSink.suspended`."""
        return self._suspended

    def close(self, timeout_s: float = 10.0) -> None:
        """See `StatusSink.close`."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        resource = None
        while True:
            self._wake.wait(self._period)
            self._wake.clear()
            with self._lock:
                status, self._slot = self._slot, None
            try:
                resource = resource or self._connect()
                if status is not None:
                    self._apply(resource, status)
                self._watch(resource)
            except Exception as error:
                logger.warning("the status of rectraining/%s could not be written: %s", self._name, error)
                with self._lock:
                    self._slot = self._slot or status
            if self._closing.is_set() and self._slot is None:
                return
            time.sleep(PAUSE_S)

    @staticmethod
    def _connect() -> Any:
        from kubernetes import client, config, dynamic

        config.load_incluster_config()
        return dynamic.DynamicClient(client.ApiClient()).resources.get(api_version=API_VERSION, kind="RecTraining")

    def _apply(self, resource: Any, status: RecTrainingStatus) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": "RecTraining",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "status": owned(status),
        }
        resource.status.server_side_apply(
            body=body,
            name=self._name,
            namespace=self._namespace,
            field_manager=FIELD_MANAGER,
            force_conflicts=True,
        )

    def _watch(self, resource: Any) -> None:
        from kubernetes.dynamic.exceptions import NotFoundError

        try:
            current = resource.get(name=self._name, namespace=self._namespace)
        except NotFoundError:
            self._suspended = True
            return
        self._suspended = bool(current.spec.get("suspend")) or current.metadata.deletionTimestamp is not None


def open_sink(kind: str, namespace: str, name: str) -> StatusSink:
    """Opens the sink that KUBEREC_STATUS names: `kubernetes`, `terminal`, or `file:<path>`.

    Raises:
        ValueError: for any other word.
    """
    if kind == "kubernetes":
        return KubernetesStatus(namespace, name)
    if kind == "terminal":
        return TerminalStatus()
    if kind.startswith("file:"):
        return FileStatus(Path(kind.removeprefix("file:")))
    raise ValueError(f"KUBEREC_STATUS={kind}: use kubernetes, terminal or file:<path>")


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
