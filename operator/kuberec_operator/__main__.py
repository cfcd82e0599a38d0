"""The operator's process: wires the parts together, leads, works, ends on SIGTERM.

`python -m kuberec_operator [--namespace NS ...]`; everything else comes from the environment that the chart sets.
"""

import argparse
import asyncio
import logging
import os
import random
import signal
import socket
import sys
import uuid
from dataclasses import replace

import kopf

from kuberec_operator import handlers, health, replicas
from kuberec_operator.cluster import ApiTransport, Cluster, ClusterError, Transport
from kuberec_operator.kinds import OWN, Key
from kuberec_operator.lease import LeaseLost, lead
from kuberec_operator.metrics import show_tables
from kuberec_operator.reconcile import Reconciler
from kuberec_operator.settings import Settings, SettingsError
from kuberec_operator.work_queue import WorkQueue

logger = logging.getLogger("kuberec_operator")


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kuberec_operator", description=__doc__)
    parser.add_argument("--namespace", action="append", default=[], help="watch only this one (may be repeated)")
    parser.add_argument("--health-host", default="127.0.0.1", help="address of /healthz, /readyz and /metrics")
    parser.add_argument("--health-port", type=int, default=8080)
    parser.add_argument("--no-leader-election", action="store_true", help="for one replica on a developer's machine")
    parser.add_argument("--log-level", default="INFO")
    arguments = parser.parse_args()
    logging.basicConfig(level=arguments.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("kopf.objects").setLevel(logging.ERROR)
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 64
    if arguments.namespace:
        settings = replace(settings, namespaces=tuple(arguments.namespace))
    elect = not arguments.no_leader_election
    try:
        asyncio.run(run(settings, elect=elect, host=arguments.health_host, port=arguments.health_port))
    except LeaseLost as lost:
        logger.error("%s lost the Lease; ending, so that nothing is done twice", lost)
        return 1
    return 0


async def run(settings: Settings, *, elect: bool, host: str, port: int) -> None:
    """Runs until SIGTERM, SIGINT or the loss of the Lease."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    transport = await ApiTransport.open()
    progress = health.Progress()
    server = await health.serve(progress, host, port)
    identity = os.environ.get("POD_NAME") or f"{socket.gethostname()}-{uuid.uuid4().hex[:6]}"

    async def work() -> None:
        await operate(settings, transport, progress, stop)

    try:
        if elect:
            await lead(transport.api, settings.own_namespace, identity, work, stop)
        else:
            await work()
    finally:
        await server.cleanup()
        await transport.close()


async def operate(settings: Settings, transport: Transport, progress: health.Progress, stop: asyncio.Event) -> None:
    """Watches and reconciles until `stop` is set."""
    cluster = Cluster(transport)
    reconciler = Reconciler(cluster, settings.runtime, wake=lambda key: queue.add(key), ask=replicas.ask)
    queue = WorkQueue(reconciler)
    progress.queue_stuck_s = queue.stuck_s
    working = [
        asyncio.create_task(queue.run(), name="queue"),
        asyncio.create_task(resync(settings, cluster, queue, progress), name="resync"),
    ]
    watching = asyncio.create_task(_watch(settings, handlers.Wakes(queue, progress), stop), name="watch")
    try:
        await asyncio.wait({watching, *working}, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await asyncio.wait({watching}, timeout=10)
    finally:
        for task in (watching, *working):
            task.cancel()
        results = await asyncio.gather(watching, *working, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def resync(settings: Settings, cluster: Cluster, queue: WorkQueue, progress: health.Progress) -> None:
    """Looks at every object from time to time: whatever a watch missed is found here."""
    while True:
        bodies = []
        try:
            for namespace in settings.namespaces or ("",):
                for kind in OWN:
                    bodies += await cluster.list(kind, namespace)
        except ClusterError as error:
            logger.warning("resync: %s", error)
        else:
            progress.resynced(bodies)
            show_tables(bodies)
            for body in bodies:
                queue.add(Key(body["kind"], body["metadata"]["namespace"], body["metadata"]["name"]))
        await asyncio.sleep(settings.resync_s * random.uniform(0.8, 1.2))


async def _watch(settings: Settings, wakes: handlers.Wakes, stop: asyncio.Event) -> None:
    kopf_settings = kopf.OperatorSettings()
    kopf_settings.posting.enabled = False
    kopf_settings.scanning.disabled = bool(settings.namespaces)  # it needs rights on the whole cluster
    kopf_settings.watching.server_timeout = 300
    kopf_settings.watching.client_timeout = 330
    kopf_settings.watching.connect_timeout = 20
    kopf_settings.networking.request_timeout = 30
    await kopf.operator(
        standalone=True,
        clusterwide=not settings.namespaces,
        namespaces=list(settings.namespaces),
        settings=kopf_settings,
        memo=kopf.Memo(wakes=wakes),
        stop_flag=stop,
    )


if __name__ == "__main__":
    sys.exit(main())
