"""An object store that refuses, loses answers and stutters: no epoch is torn, none is committed twice."""

from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from kuberec_devcluster.services import S3, Kafka, Redis
from kuberec_runtime.checkpoint import find_restorable, open_store, read_commits, read_manifest
from kuberec_runtime.checkpoint.restore import iter_rows
from tests.component.faulty_s3 import Faults, FaultyS3
from tests.component.training import Training, write_samples

SAMPLES = 3000
names = count()
pytestmark = pytest.mark.timeout(600)

FAULTS = {
    "500s": Faults(refused=0.25),
    "time-outs after the write": Faults(lost=0.25),
    "slow reads": Faults(slow=1.0, delay_s=0.02),
    "all of it": Faults(refused=0.1, lost=0.1, slow=0.3),
}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with S3() as server:
        yield server


@pytest.fixture
def proxy(s3: S3) -> Iterator[FaultyS3]:
    proxy = FaultyS3(s3.endpoint)
    yield proxy
    proxy.close()


def environment(s3: S3, endpoint: str) -> dict[str, str]:
    return {"AWS_ENDPOINT": endpoint, "AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}


@pytest.mark.parametrize("kind", FAULTS)
def test_no_epoch_is_torn_and_none_is_committed_twice(
    kafka: Kafka, redis_server: Redis, s3: S3, proxy: FaultyS3, tmp_path: Path, kind: str
) -> None:
    training = Training(tmp_path, kafka.bootstrap, redis_server.url, f"faults-{next(names)}")
    write_samples(kafka.bootstrap, training.topic, SAMPLES)
    uri = f"s3://{s3.bucket}/{training.topic}"
    training.set("RecTraining", "spec.checkpoint", {"uri": uri, "interval": "500ms"})
    proxy.faults = FAULTS[kind]
    try:
        for point in ("checkpoint.manifest-written@2", "log.created@4", ""):
            training.start(crash_at=point, env=environment(s3, proxy.endpoint))
            if training.wait() == 0:
                break
        else:
            raise AssertionError(f"it never ended well\n{training.log()[-3000:]}")
    finally:
        training.stop()
    store = open_store(uri, environment(s3, s3.endpoint))
    commits = list(read_commits(store))
    assert max(Counter(c.epoch for c in commits).values()) == 1
    newest = read_manifest(store, commits[0].manifest)
    assert newest.samples == SAMPLES
    for offset in newest.offsets:
        assert offset.next == offset.end
        assert newest.samples_by_partition[offset.partition] == offset.end - offset.start
    plan = find_restorable(store)
    assert plan is not None and plan.manifest.epoch == newest.epoch and not plan.skipped
    assert sum(len(keys) for _, keys, _ in iter_rows(store, newest)) > 100, "every file is what the manifest says"
    happened = proxy.faults.seen
    assert sum(happened.values()) > 5, f"too little went wrong to prove anything: {happened}"
