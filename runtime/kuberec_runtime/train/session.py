"""Joins the Ray cluster, or starts one on loopback for a local run, with the resources that the fleet asks for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from kuberec_runtime.localray import start_local_ray
from kuberec_runtime.train.fleet import SHARD_RESOURCE, WORKER_RESOURCE
from kuberec_runtime.train.job import Job

LOCAL_OBJECT_STORE_BYTES = 256 * 2**20


@contextmanager
def ray_session(job: Job, local: bool) -> Iterator[None]:
    """Connects on entry, disconnects on exit (a local Ray is shut down)."""
    if local:
        spec = job.training.spec
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        start_local_ray(
            num_cpus=2,
            resources={
                SHARD_RESOURCE: float(spec.parameter_servers.replicas),
                WORKER_RESOURCE: float(spec.workers.replicas),
            },
            object_store_memory=LOCAL_OBJECT_STORE_BYTES,
            log_to_driver=True,
            configure_logging=False,
        )
    else:
        ray.init(address="auto", log_to_driver=True, configure_logging=False)
    try:
        yield
    finally:
        ray.shutdown()
