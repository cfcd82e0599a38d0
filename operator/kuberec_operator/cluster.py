"""The only file that talks to the API server: reads, server-side apply, deletions, events; JSON in, JSON out.

Reads are live, never from a cache, so a decision is never made on a stale view of a child; `handlers` wakes a reconcile
only for changes that matter, which keeps reads rare. A status is applied with the resource version it was decided on:
if somebody wrote in between, the API server refuses and the reconcile starts again.
"""

import json
import logging
import ssl
from collections.abc import Mapping
from typing import Any, Protocol

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from kuberec_operator.kinds import CHILDREN, EVENT, FIELD_MANAGER, Kind
from kuberec_operator.metrics import WRITES

TIMEOUT_S = 20.0
Body = dict[str, Any]
logger = logging.getLogger(__name__)


class ClusterError(Exception):
    """The API server did not do it; `status` is the HTTP code, 0 if it did not answer."""

    def __init__(self, what: str, status: int, message: str) -> None:
        self.status = status
        super().__init__(f"{what}: {status or 'no answer'}: {message}")


class Conflict(ClusterError):  # noqa: N818
    """Somebody else wrote in between: read again and decide again."""


class KindUnknown(ClusterError):  # noqa: N818
    """The API server has no such kind (its CustomResourceDefinition is not installed)."""


class Transport(Protocol):
    """One HTTP request to the API server; what fault-injecting tests replace."""

    async def __call__(
        self, method: str, path: str, query: Mapping[str, str], body: Body | None, content_type: str
    ) -> tuple[int, Body]:
        """Returns the status code and the decoded answer.

        Raises:
            ClusterError: there was no answer.
        """


class ApiTransport:
    """The real transport: `kubernetes.aio`, with the in-cluster configuration or a kubeconfig."""

    def __init__(self, api: client.ApiClient) -> None:
        self._api = api

    @classmethod
    async def open(cls) -> "ApiTransport":
        """Connects as the pod's ServiceAccount, or as KUBECONFIG says."""
        try:
            config.load_incluster_config()
        except config.ConfigException:
            await config.load_kube_config()
        return cls(client.ApiClient())

    @property
    def api(self) -> client.ApiClient:
        """The client itself, for leader election."""
        return self._api

    async def close(self) -> None:
        """Closes connections."""
        await self._api.close()

    async def __call__(
        self, method: str, path: str, query: Mapping[str, str], body: Body | None, content_type: str
    ) -> tuple[int, Body]:
        """See `Transport`."""
        headers = {"Accept": "application/json", "Content-Type": content_type}
        try:
            request = await self._api.param_serialize(
                method,
                path,
                query_params=list(query.items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = await self._api.call_api(*request, _request_timeout=TIMEOUT_S)
            raw = await answer.read()
        except ApiException as error:
            return int(error.status or 0), {"message": str(error.body or error.reason)}
        except (aiohttp.ClientError, TimeoutError, ssl.SSLError, OSError) as error:
            raise ClusterError(f"{method} {path}", 0, str(error) or type(error).__name__) from error
        return int(answer.status), _decoded(raw)


def _decoded(raw: bytes) -> Body:
    try:
        body = json.loads(raw)
    except ValueError:
        return {"message": raw[:200].decode(errors="replace")}
    return body if isinstance(body, dict) else {"message": str(body)}


class Cluster:
    """What the operator does with the API server."""

    def __init__(self, transport: Transport) -> None:
        self._send = transport

    async def get(self, kind: Kind, namespace: str, name: str) -> Body | None:
        """Returns an object, or None if it does not exist.

        Raises:
            KindUnknown: its kind does not exist either.
            ClusterError: anything else that went wrong.
        """
        try:
            return await self._request("GET", kind.path(namespace, name))
        except ClusterError as error:
            if error.status == 404 and not isinstance(error, KindUnknown):
                return None
            raise

    async def list(self, kind: Kind, namespace: str = "", labels: str = "") -> list[Body]:
        """Returns the objects of a kind with these labels, each with its kind and apiVersion."""
        answer = await self._request("GET", kind.path(namespace), {"labelSelector": labels} if labels else {})
        return [{"apiVersion": kind.api_version, "kind": kind.name, **item} for item in answer.get("items", [])]

    async def apply(self, manifest: Body) -> None:
        """Applies a child server-side."""
        kind, meta = CHILDREN[manifest["kind"]], manifest["metadata"]
        await self._apply(kind.path(meta["namespace"], meta["name"]), manifest, kind.name)

    async def apply_status(self, kind: Kind, resource: Body, status: Mapping[str, Any]) -> Body:
        """Applies the operator's part of a status, on the very version of the resource that was read.

        Raises:
            Conflict: the resource was changed or deleted since.
        """
        meta = resource["metadata"]
        body = {
            "apiVersion": kind.api_version,
            "kind": kind.name,
            "metadata": {
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
                "resourceVersion": meta["resourceVersion"],
            },
            "status": dict(status),
        }
        return await self._apply(kind.path(meta["namespace"], meta["name"], "status"), body, f"{kind.name}/status")

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """Deletes an object in the background; one that does not exist is fine."""
        query = {"propagationPolicy": "Background"}
        WRITES.labels("delete", kind.name).inc()
        try:
            await self._request("DELETE", kind.path(namespace, name), query)
        except ClusterError as error:
            if error.status != 404:
                raise

    async def record(self, regarding: Body, name: str, reason: str, message: str, warning: bool, time: str) -> None:
        """Records an event; the same name again is the same event, so that a repeated reconcile adds none."""
        meta = regarding["metadata"]
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": regarding["apiVersion"],
                "kind": regarding["kind"],
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
            },
            "reason": reason,
            "message": message[:1024],
            "type": "Warning" if warning else "Normal",
            "source": {"component": "kuberec"},
            "reportingComponent": "kuberec.dev/operator",
            "reportingInstance": "kuberec-operator",
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
        }
        await self._apply(EVENT.path(meta["namespace"], name), event, "Event")

    async def _apply(self, path: str, body: Body, what: str) -> Body:
        WRITES.labels("apply", what).inc()
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._request("PATCH", path, query, body, "application/apply-patch+yaml")

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        content_type: str = "application/json",
    ) -> Body:
        code, answer = await self._send(method, path, query or {}, body, content_type)
        if 200 <= code < 300:
            return answer
        message = str(answer.get("message", ""))
        what = f"{method} {path}"
        if code == 409:
            raise Conflict(what, code, message)
        if code == 404 and "reason" not in answer and "NotFound" not in message:
            raise KindUnknown(what, code, message)
        raise ClusterError(what, code, message)
