"""Leader election by a Lease: two replicas of the operator are safe, one works, the other takes over.

The loop is `kubernetes.aio.leaderelection`; what it lacks is added here: on an orderly end the Lease is given up at
once, so that a rolling update hands over in two seconds instead of waiting for the Lease to run out.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from kubernetes.aio.client import ApiClient, V1Lease, V1ObjectMeta
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from kuberec_operator.metrics import LEADING

NAME = "kuberec-operator"
DURATION_S, RENEW_S, RETRY_S = 15, 10, 2
logger = logging.getLogger(__name__)


class _Lock(LeaseLock):  # type: ignore[misc]
    """LeaseLock whose `create` passes only arguments that the client's validation accepts (37.0.2 sends a bool)."""

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        body = V1Lease(metadata=V1ObjectMeta(name=name), spec=self.update_lease(election_record))
        try:
            await self.api_instance.create_namespaced_lease(namespace, body)
        except ApiException as error:
            logger.info("another replica made the Lease: %s", error.reason)
            return False
        return True


class LeaseLost(Exception):  # noqa: N818
    """Another replica leads now; this process has to end."""


async def lead(
    api: ApiClient, namespace: str, identity: str, work: Callable[[], Awaitable[None]], stop: asyncio.Event
) -> None:
    """Waits for the Lease, does the work while holding it, and gives it up when the work ends or `stop` is set.

    Raises:
        LeaseLost: the Lease could not be renewed in time.
        Exception: what the work raised.
    """
    lock = _Lock(NAME, namespace, identity, api)
    outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def leading() -> None:
        LEADING.set(1)
        logger.info("%s leads", identity)
        try:
            await work()
        except BaseException as error:
            if not outcome.done():
                outcome.set_exception(LeaseLost(identity) if isinstance(error, asyncio.CancelledError) else error)
            raise
        else:
            if not outcome.done():
                outcome.set_result(None)
        finally:
            LEADING.set(0)

    election = asyncio.create_task(LeaderElection(Config(lock, DURATION_S, RENEW_S, RETRY_S, leading, None)).run())
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({election, outcome, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if election.done() and not outcome.done():
            raise election.exception() or LeaseLost(identity)
        if stop.is_set() and LEADING._value.get():
            await asyncio.wait({outcome}, timeout=10)
        if outcome.done():
            outcome.result()
    finally:
        for task in (election, stopped):
            task.cancel()
        await asyncio.gather(election, stopped, return_exceptions=True)
        await _release(lock, namespace, identity)


async def _release(lock: LeaseLock, namespace: str, identity: str) -> None:
    held, record = await lock.get(NAME, namespace)
    if not held or record is None or getattr(record, "holder_identity", None) != identity:
        return
    lease = lock.lease_reference
    lease.spec.holder_identity = None
    try:
        await lock.api_instance.replace_namespaced_lease(NAME, namespace, lease)
        logger.info("%s gave the Lease up", identity)
    except Exception as error:  # an orderly end is not worth failing for: the Lease runs out by itself
        logger.warning("the Lease was not given up: %s", error)
