"""One training of one mode through its schedule: events happen, attempts end and are started again, all is checked."""

import copy
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from kuberec_runtime.checkpoint import Store, StoreError, open_store
from kuberec_runtime.publish.tier import Tier
from kuberec_runtime.stream.ends import read_ends
from tests.component.faulty_s3 import Faults
from tests.component.training import bits, training_documents, write_samples
from tests.soak.attempt import Attempt, send
from tests.soak.checks import CommitWatch, SoakError, check_all_applied, check_commits, check_tier
from tests.soak.schedule import FIRST_SIZE, Event, Kind, Mode, schedule
from tests.soak.servers import UNLIMITED, Servers
from tests.soak.story import Story, told

PATIENCE_S = 400.0
LOOK_EVERY_S = 0.2
PARTITIONS = 3
PACE_BYTES = 400_000
PACE_SAMPLES = 500
"""About what the quota lets through in a second, in samples of examples/feed.yaml."""
AHEAD = 10 * PACE_SAMPLES
"""What a topic without end has at least for the workers to read."""

_PERMANENT = range(64, 79)


class Soak:
    """A training, its servers and its story."""

    def __init__(self, servers: Servers, folder: Path, story: Story, seed: int, mode: Mode) -> None:
        folder.mkdir(parents=True)
        self._servers, self._folder, self._story = servers, folder, story
        self._seed, self._mode = seed, mode
        self._topic = f"soak-{mode.lower()}"
        self._endless = mode is Mode.ASYNC  # in Sync the bits are a promise for a topic that ends
        self._documents = self._training(self._topic, "2s")
        self._attempt: Attempt | None = None
        self._number = 0
        self._written = 0
        self._calm_at: float | None = None
        self._watch: CommitWatch | None = None
        self._samples, self._grew = 0, False

    def run(self, minutes: float) -> None:
        """Runs the whole story.

        Raises:
            SoakError: something did not hold.
        """
        seconds, facts = minutes * 60, {}
        self._write(AHEAD if self._endless else int(PACE_SAMPLES * seconds))
        expected = self._undisturbed() if self._mode is Mode.SYNC else ""
        self._servers.kafka.pace(PACE_BYTES)
        self._watch = CommitWatch(self._store())
        try:
            self._disturb(seconds)
            self._complete()
            facts["samples applied, each once"] = f"{self._check():,}"
            if self._mode is Mode.SYNC:
                if (found := bits(self._store(), self._watch.seen[-1][1])) != expected:
                    raise SoakError(f"not the bits of an undisturbed run: {found}, expected {expected}")
                facts["rows and dense weights of an undisturbed run"] = "same bits"
        finally:
            if self._attempt is not None:
                self._attempt.kill()
        facts["epochs, none torn, none twice"] = str(len(self._watch.seen))
        facts["rows in Redis, equal to the last epoch's"] = f"{self._compared:,}"
        facts["attempts"] = str(self._number)
        self._story.summary(f"{self._mode}, seed {self._seed}", facts)

    def _disturb(self, seconds: float) -> None:
        self._start()
        self._await_moment(
            Event(Kind.PREEMPT, 0.0), float("inf")
        )  # minutes of misfortune begin with what is learnt first
        until = time.monotonic() + seconds
        for event in schedule(self._seed, self._mode):
            if not self._await_moment(event, until):
                return
            self._say(told(event))
            self._story.struck(event)
            self._strike(event)

    def _await_moment(self, event: Event, until: float) -> bool:
        """Waits for an event's moment; False when the time is over, or in Sync the topic."""
        given_up = time.monotonic() + PATIENCE_S
        since: float | None = None
        self._grew = False
        while True:
            now = time.monotonic()
            if now > until or not self._look_after():
                return False
            if since is None and (self._grew or event.early):
                since = now
            if since is not None and now - since >= event.delay_s:
                return True
            if now > given_up:
                raise SoakError(f"nothing was learnt for {PATIENCE_S:.0f} s; see {self._running.log}")
            time.sleep(LOOK_EVERY_S)

    def _look_after(self) -> bool:
        """What the operator does; False once the training is complete."""
        if self._calm_at is not None and time.monotonic() > self._calm_at:
            self._calm()
        samples = self._learnt()
        self._grew |= samples > self._samples
        self._samples = samples
        self._look_at_commits()
        if self._endless and self._written - samples < AHEAD:
            self._write(AHEAD)
        code = self._running.poll()
        if code is None:
            return True
        self._ended(code)
        if code == 0:
            return False
        self._start()
        return True

    def _ended(self, code: int) -> None:
        status = self._running.status()
        outcome = status.outcome if status else None
        reason = outcome.reason if outcome else f"killed ({code})"
        self._story.ended(reason)
        self._say(f"ended: {reason}")
        if code in _PERMANENT or reason == "CountMismatch":
            raise SoakError(f"attempt {self._number} ended with {code}, {outcome}; see {self._running.log}")
        if outcome is not None and (left := self._running.left()):
            raise SoakError(f"attempt {self._number} left processes: {left}")
        self._running.kill()  # with the head, a whole Ray cluster goes

    def _strike(self, event: Event) -> None:
        attempt = self._running
        match event.kind:
            case Kind.KILL_SHARD:
                self._signal(attempt.shards(), event, signal.SIGKILL)
            case Kind.KILL_WORKER:
                self._signal(attempt.workers(), event, signal.SIGKILL)
            case Kind.KILL_DRIVER:
                self._signal([attempt.driver.pid], event, signal.SIGKILL)
                attempt.driver.wait(PATIENCE_S)
            case Kind.LOSE_NODE:
                attempt.kill()
            case Kind.STOP_SHARD:
                self._stop_for_a_while(attempt.shards(), event)
            case Kind.STOP_WORKER:
                self._stop_for_a_while(attempt.workers(), event)
            case Kind.STOP_DRIVER:
                self._stop_for_a_while([attempt.driver.pid], event)
            case Kind.BROKER_RESTART:
                self._servers.kafka.restart()
            case Kind.BROKER_CRASH:
                self._servers.kafka.kill()
                self._servers.kafka.start()
            case Kind.STORE_ERRORS | Kind.STORE_LATENCY:
                self._servers.proxy.faults = Faults(event.refused, event.lost, event.slow, event.latency_s)
                self._calm_at = time.monotonic() + event.seconds
            case Kind.PREEMPT:
                self._ask_to_end()
            case Kind.RESIZE:
                attempt.kill()  # a changed spec is a new attempt, without a last cut
                self._resize(event.workers, event.shards)
            case Kind.NEW_PARTITION:
                self._grow_topic()

    def _grow_topic(self) -> None:
        self._servers.kafka.add_partitions(self._topic, len(self._records()) + 1)
        self._write(AHEAD)  # some of it goes to the new one

    def _signal(self, pids: Sequence[int], event: Event, number: signal.Signals) -> int | None:
        """Sends a signal to one of the processes; None if there is none: the attempt is just ending."""
        if not pids:
            return None
        pid = pids[int(event.pick * len(pids))]
        return pid if send(pid, number) else None

    def _stop_for_a_while(self, pids: Sequence[int], event: Event) -> None:
        pid = self._signal(pids, event, signal.SIGSTOP)
        time.sleep(event.seconds)
        if pid is not None:
            send(pid, signal.SIGCONT)

    def _ask_to_end(self) -> None:
        attempt = self._running
        before = attempt.status()
        at_work = before is not None and before.progress is not None and before.progress.samples > 0
        if attempt.poll() is None:
            attempt.driver.terminate()
        code = attempt.driver.wait(PATIENCE_S)
        status = attempt.status()
        outcome = status.outcome if status else None
        if at_work and outcome is None and code != -signal.SIGKILL:
            raise SoakError(f"asked to end, attempt {self._number} says nothing (exit code {code}); see {attempt.log}")
        if outcome is not None and outcome.reason == "Preempted":
            self._look_at_commits()
            assert self._watch is not None and status is not None
            learnt = status.progress.samples if status.progress else 0
            if learnt > self._watch.samples:
                raise SoakError(
                    f"asked to end (exit code {code}) with {learnt} samples, committed {self._watch.samples}"
                )

    def _complete(self) -> None:
        """The topic ends, nothing goes wrong any more: some attempt runs to its end."""
        self._calm()
        self._servers.kafka.pace(UNLIMITED)
        if self._endless:
            self._endless = False
            self._ask_to_end()
            self._documents["RecTraining"]["spec"]["source"]["kafka"]["stopAt"] = "End"
        self._say("nothing goes wrong any more, the topic ends")
        given_up = time.monotonic() + PATIENCE_S
        while self._running.poll() != 0:
            if not self._look_after():
                break
            if time.monotonic() > given_up:
                raise SoakError(f"not complete after {PATIENCE_S:.0f} s; see {self._running.log}")
            time.sleep(LOOK_EVERY_S)
        if left := self._running.left():
            raise SoakError(f"the training is complete, and these processes are left: {left}")

    def _check(self) -> int:
        """Returns the samples of the last epoch, after all that must hold was looked at."""
        assert self._watch is not None
        self._watch.look()
        check_commits(self._watch.seen)
        manifest = self._watch.seen[-1][1]
        check_all_applied(manifest, self._records())
        tier = Tier(self._servers.redis.url, training=self._topic)
        self._compared = check_tier(tier, self._store(), manifest, self._number)
        tier.close()
        return manifest.samples

    def _undisturbed(self) -> str:
        """The bits that the same topic comes to when nothing happens."""
        name = f"{self._topic}-undisturbed"
        folder = self._folder / "undisturbed"
        folder.mkdir()
        env = self._servers.store_environment(faulty=False)
        attempt = Attempt(1, self._training(name, "60s"), folder, env)
        try:
            code = attempt.driver.wait(PATIENCE_S + self._written / PACE_SAMPLES)
        finally:
            attempt.kill()
        if code != 0:
            raise SoakError(f"the undisturbed run ended with {code}; see {attempt.log}")
        watch = CommitWatch(open_store(f"s3://{self._servers.s3.bucket}/{name}", env))
        watch.look()
        self._story.say(f"undisturbed run complete: {watch.samples:,} samples")
        return bits(open_store(f"s3://{self._servers.s3.bucket}/{name}", env), watch.seen[-1][1])

    def _start(self) -> None:
        self._number += 1
        env = self._servers.store_environment(faulty=True) | {"KUBEREC_PARTITIONS_EVERY_S": "1"}
        self._attempt = Attempt(self._number, copy.deepcopy(self._documents), self._folder, env)
        self._say("starts")

    def _resize(self, workers: int, shards: int) -> None:
        spec = self._documents["RecTraining"]["spec"]
        spec["workers"]["replicas"], spec["parameterServers"]["replicas"] = workers, shards

    def _training(self, name: str, interval: str) -> dict[str, dict[str, object]]:
        documents = training_documents()
        workers, shards = FIRST_SIZE
        documents["RecTraining"]["metadata"]["name"] = name
        spec = documents["RecTraining"]["spec"]
        kafka = {"bootstrapServers": self._servers.kafka.bootstrap, "topic": self._topic}
        kafka["stopAt"] = "Never" if self._endless else "End"
        spec["source"] = {"kafka": kafka}
        spec["checkpoint"] = {"uri": f"s3://{self._servers.s3.bucket}/{name}", "interval": interval, "keep": 100}
        spec["publish"] = {"redis": {"url": self._servers.redis.url}, "interval": "1s", "dtype": "Float32"}
        spec["workers"] = {"replicas": workers, "batchSize": 128}
        spec["parameterServers"] = {"replicas": shards}
        spec["synchronization"] = {"mode": str(self._mode)}
        del spec["monitors"]  # a closed gate would leave the tier behind the table
        return documents

    def _write(self, samples: int) -> None:
        write_samples(self._servers.kafka.bootstrap, self._topic, samples, PARTITIONS, seed=self._written % 97)
        self._written += samples

    def _records(self) -> dict[int, int]:
        """Records by partition, as the broker counts them."""
        ends = read_ends(self._servers.kafka.bootstrap, self._topic, timeout_s=30)
        return {partition: end.latest - end.earliest for partition, end in ends.items()}

    def _calm(self) -> None:
        self._servers.proxy.faults, self._calm_at = Faults(), None

    def _look_at_commits(self) -> None:
        assert self._watch is not None
        try:
            self._watch.look()
        except StoreError as error:  # read past the proxy, so it is the machine's own slowness; the next look will do
            self._story.say(f"the commit log could not be read: {error}")

    def _learnt(self) -> int:
        status = self._running.status()  # 0 until an attempt has read what its predecessors learnt
        return (status.progress.samples if status and status.progress else 0) or self._samples

    def _store(self) -> Store:
        return open_store(
            self._documents["RecTraining"]["spec"]["checkpoint"]["uri"], self._servers.store_environment(False)
        )

    def _say(self, text: str) -> None:
        self._story.say(text, self._number, self._samples)

    @property
    def _running(self) -> Attempt:
        assert self._attempt is not None
        return self._attempt
