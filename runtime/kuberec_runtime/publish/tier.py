"""The embedding tier in Redis: rows, then dense weights, then `current`; readers never see half a version.

Two fences keep a stale attempt out. Rows are written in transactions that watch the training's `attempt` key, so a
driver or shard of attempt n writes nothing once attempt n+1 has claimed the tier. `current` moves by a compare-and-set
script, only forwards in (attempt, epoch). A crash between any two steps leaves `current` at a complete version.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import redis
from numpy.typing import NDArray

from kuberec_api.training import RowType
from kuberec_runtime.crashpoints import crash_here
from kuberec_runtime.publish import resp
from kuberec_runtime.publish.errors import StalePublication, TierCorrupt
from kuberec_runtime.publish.fetch import fetch_rows
from kuberec_runtime.publish.publication import (
    Current,
    Delta,
    Dense,
    Description,
    Publication,
    Version,
    pack_changed,
    pack_dense,
    row_namespace,
    row_prefix,
    unpack_delta,
    unpack_dense,
)
from kuberec_runtime.publish.rowtype import encode_rows

ROWS_PER_COMMAND = 4096
DELTAS_KEPT = 512

_CLAIM = """
local held = tonumber(redis.call('GET', KEYS[1]) or '-1')
if tonumber(ARGV[1]) > held then redis.call('SET', KEYS[1], ARGV[1]) return ARGV[1] end
return tostring(held)
"""

# KEYS: attempt, current, deltas. ARGV: ns, attempt, epoch, deltas kept, 1 if fenced, then the entry's fields.
_MOVE = """
local attempt, epoch = tonumber(ARGV[2]), tonumber(ARGV[3])
local held = tonumber(redis.call('GET', KEYS[1]) or '-1')
if held > attempt then return {0, 'attempt ' .. held} end
if held < 0 and ARGV[5] == '1' then return {0, ''} end
local before = redis.call('GET', KEYS[2])
local previous = ''
if before then
  local ns, a, e = string.match(before, '^(%S+) (%d+)%.(%d+)$')
  if ns then
    if tonumber(a) > attempt or (tonumber(a) == attempt and tonumber(e) >= epoch) then
      return {0, 'version ' .. a .. '.' .. e}
    end
    if ns == ARGV[1] then previous = a .. '.' .. e end
  end
end
local entry = {'version', ARGV[2] .. '.' .. ARGV[3], 'previous', previous}
for i = 6, #ARGV do entry[#entry + 1] = ARGV[i] end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[4], '*', unpack(entry))
redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. ARGV[2] .. '.' .. ARGV[3])
return {1, previous}
"""


class Tier:
    """One training's part of the tier.

    Args:
        url: `redis://host:port/db`, `rediss://...` or `unix:///path`, without a password.
        password: of the default user.
        namespace: the Kubernetes namespace.
        training: name of the RecTraining.
        attempt: a writer's attempt, for which somebody must have called `claim` before the first write: a writer that
            claimed by itself would not notice that what others wrote before was emptied. None writes without a fence,
            which is for tools and tests that are the only writer.
        timeout_s: bound of one call.

    All methods raise `TierUnreachable` when nobody answers and `TierRefused` when the server says no. An instance is
    for one thread at a time.
    """

    def __init__(
        self,
        url: str,
        password: str | None = None,
        namespace: str = "default",
        training: str = "feed",
        attempt: int | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self.address = resp.parse_address(url)
        self.kube_namespace = namespace
        self.training = training
        self._password = password
        self._attempt = attempt
        self._timeout_s = timeout_s
        self._rows: resp.Connection | None = None
        self._redis: Any = redis.Redis.from_url(
            url, password=password, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, protocol=2
        )
        root = f"kr:{namespace}/{training}"
        self._current_key, self._attempt_key = f"{root}/current", f"{root}/attempt"

    def namespace_of(self, digest: str, widths: Mapping[str, int], dtype: RowType) -> str:
        """Returns the namespace of rows of this plan digest, table widths and row type."""
        return row_namespace(self.kube_namespace, self.training, digest, widths, dtype)

    def ping(self) -> None:
        """Checks address and password; raises as every method does."""
        with self._errors():
            self._redis.ping()

    def claim(self, attempt: int) -> None:
        """Makes `attempt` the only one that may write; older attempts' writes fail from now on.

        Raises:
            StalePublication: if a newer attempt has claimed the tier.
        """
        with self._errors():
            held = int(self._redis.eval(_CLAIM, 1, self._attempt_key, str(attempt)))
        if held > attempt:
            raise self._stale(f"attempt {attempt}", f"attempt {held}")
        self._attempt = attempt

    def owner(self) -> int:
        """The attempt that may write, -1 before the first claim."""
        with self._errors():
            return int(self._redis.get(self._attempt_key) or -1)

    def write_rows(
        self, namespace: str, table: str, ids: NDArray[np.int64], rows: NDArray[np.float32], dtype: RowType
    ) -> None:
        """Writes rows float32[n, w] under ids int64[n].

        Raises:
            StalePublication: if a newer attempt has claimed the tier; some rows may have been written before.
            TierCorrupt: if no attempt has claimed it, so it was emptied.
        """
        dtype = RowType(dtype)
        if rows.shape[0] != ids.size:
            raise ValueError(f"table '{table}': {ids.size} ids, {rows.shape[0]} rows")
        prefix = row_prefix(namespace, table)
        self._send_chunks(ids.size, lambda chunk: resp.encode_mset(prefix, ids[chunk], encode_rows(rows[chunk], dtype)))

    def delete_rows(self, namespace: str, table: str, ids: NDArray[np.int64]) -> None:
        """Deletes the rows of ids int64[n]: from then on they read as those of ids that were never published.

        As writing, this comes before `commit`, whose `changed` names the ids: a reader that follows the delta stream
        reads them after they are gone, and one that still serves the version before sees what a new row's reader sees,
        one row of the next version.

        Raises:
            StalePublication: if a newer attempt has claimed the tier; some rows may have been deleted before.
            TierCorrupt: if no attempt has claimed it, so it was emptied.
        """
        prefix = row_prefix(namespace, table)
        self._send_chunks(ids.size, lambda chunk: resp.encode_unlink(prefix, ids[chunk]))

    def _send_chunks(self, count: int, encode: Callable[[slice], bytes]) -> None:
        """Sends the commands for `count` rows, `ROWS_PER_COMMAND` at once, behind the fence if there is one.

        A connection on which that failed is closed: a watch it still held would refuse the next writes.
        """
        connection = self._connection()
        try:
            if self._attempt is not None:
                self._send_fenced(connection, count, encode)
            else:
                self._send_unfenced(connection, count, encode)
        except BaseException:
            connection.close()
            raise

    def _send_unfenced(self, connection: resp.Connection, count: int, encode: Callable[[slice], bytes]) -> None:
        unread = 0
        for chunk in _chunks(count):
            connection.send(encode(chunk), self._timeout_s)
            unread += 1
            if unread > 2:
                connection.replies(unread, self._timeout_s)
                unread = 0
        connection.replies(unread, self._timeout_s)

    def _send_fenced(self, connection: resp.Connection, count: int, encode: Callable[[slice], bytes]) -> None:
        self._watch(connection)
        for chunk in _chunks(count):
            self._write_fenced(connection, encode(chunk))
            if chunk.start == 0:
                crash_here("publish.rows")
        connection.send(resp.encode_command(b"UNWATCH"), self._timeout_s)
        connection.replies(1, self._timeout_s)

    def commit(self, publication: Publication, keep: int = 3) -> bool:
        """Writes dense weights, meta and the delta entry, then moves `current`; rows must have been written before.

        Args:
            publication: what to commit.
            keep: how many dense versions of the namespace remain for pins and rollback.

        Returns:
            False if this very version is current already (a retry).

        Raises:
            StalePublication: a newer attempt or version owns `current`; nothing a reader follows was changed.
            TierCorrupt: no attempt has claimed the tier, so it was emptied; nothing a reader follows was changed.
        """
        description = publication.description
        version, namespace = description.version, publication.namespace
        now = self.current()
        if now is not None and now.version == version and now.namespace == namespace:
            return False
        if now is not None and now.version >= version:
            raise self._stale(f"version {version}", f"version {now.version}")
        crash_here("publish.dense.before")
        versions = f"{namespace}/versions"
        with self._errors():
            pipe = self._redis.pipeline(transaction=True)
            pipe.lrem(versions, 0, str(version))
            pipe.rpush(versions, str(version))
            pipe.set(f"{namespace}/dense/{version}", pack_dense(publication))
            pipe.execute()
            crash_here("publish.dense")
            self._redis.set(f"{namespace}/meta", description.to_json())
            crash_here("publish.meta")
            fields: list[Any] = [word for item in pack_changed(publication.changed).items() for word in item]
            keys = [self._attempt_key, self._current_key, f"{namespace}/deltas"]
            moved, owner = self._redis.eval(
                *(_MOVE, 3, *keys, namespace, version.attempt, version.epoch, DELTAS_KEPT),
                *(int(self._attempt is not None), *fields),
            )
            if not moved:
                self._redis.delete(f"{namespace}/dense/{version}")
                raise self._stale(f"version {version}", owner.decode()) if owner else self._emptied()
            crash_here("publish.current")
            self._forget_old(namespace, keep)
        return True

    def current(self) -> Current | None:
        """Returns what `current` names, None before the first publication."""
        with self._errors():
            value = self._redis.get(self._current_key)
        if value is None:
            return None
        namespace, _, version = value.decode().rpartition(" ")
        try:
            return Current(namespace, Version.parse(version))
        except ValueError:
            raise TierCorrupt(f"'{self._current_key}' holds {value!r}, not '<namespace> <version>'") from None

    def meta(self, namespace: str) -> Description | None:
        """Returns the namespace's newest description, None if it has none."""
        with self._errors():
            value = self._redis.get(f"{namespace}/meta")
        return None if value is None else Description.from_json(value)

    def dense(self, namespace: str, version: Version) -> Dense:
        """Reads a complete version.

        Raises:
            TierCorrupt: if it is not there (any more) or does not parse.
        """
        with self._errors():
            value = self._redis.get(f"{namespace}/dense/{version}")
            kept = [] if value is not None else self._redis.lrange(f"{namespace}/versions", 0, -1)
        if value is None:
            names = ", ".join(v.decode() for v in kept) or "none"
            raise TierCorrupt(f"version {version} is not in the tier ({namespace}); it holds: {names}")
        found = unpack_dense(value)
        if found.description.version != version:
            raise TierCorrupt(f"'{namespace}/dense/{version}' holds version {found.description.version}")
        return found

    def versions(self, namespace: str) -> list[Version]:
        """Returns the versions whose dense weights are kept, oldest first."""
        with self._errors():
            return [Version.parse(v.decode()) for v in self._redis.lrange(f"{namespace}/versions", 0, -1)]

    def read_rows(
        self, namespace: str, ids: Mapping[str, NDArray[np.int64]]
    ) -> dict[str, tuple[NDArray[np.float32], NDArray[np.bool_]]]:
        """Reads rows of several tables in one round trip, with widths and row type as `<ns>/meta` says.

        Returns:
            by table: rows float32[n, w], zeros where there is none, and found bool[n].
        """
        meta = self.meta(namespace)
        if meta is None:
            raise TierCorrupt(f"namespace '{namespace}' has no meta: nothing was published there")
        widths = {table: meta.tables[table].width for table in ids}
        return fetch_rows(self._connection(), namespace, ids, widths, meta.dtype, self._timeout_s)

    def deltas(self, namespace: str, after: str = "0", count: int = 100) -> list[Delta]:
        """Returns entries of the delta stream after the entry `after`, oldest first."""
        with self._errors():
            entries = self._redis.xrange(f"{namespace}/deltas", min=f"({after}" if after != "0" else "-", count=count)
        return [unpack_delta(entry_id, fields) for entry_id, fields in entries]

    def last_delta(self, namespace: str) -> Delta | None:
        """Returns the newest entry of the delta stream."""
        with self._errors():
            entries = self._redis.xrevrange(f"{namespace}/deltas", count=1)
        return unpack_delta(*entries[0]) if entries else None

    def close(self) -> None:
        """Closes all connections."""
        if self._rows is not None:
            self._rows.close()
        self._redis.close()

    def _connection(self) -> resp.Connection:
        if self._rows is None or self._rows.closed:
            self._rows = resp.Connection(self.address, self._password, self._timeout_s)
        return self._rows

    def _watch(self, connection: resp.Connection) -> None:
        key = self._attempt_key.encode()
        connection.send(resp.encode_command(b"WATCH", key) + resp.encode_command(b"GET", key), self._timeout_s)
        self._check_fence(connection.replies(2, self._timeout_s)[1])

    def _write_fenced(self, connection: resp.Connection, command: bytes) -> None:
        key = self._attempt_key.encode()
        parts = (resp.encode_command(b"MULTI"), command, resp.encode_command(b"EXEC"))
        again = (resp.encode_command(b"WATCH", key), resp.encode_command(b"GET", key))
        connection.send(b"".join(parts + again), self._timeout_s)
        _, _, executed, _, held = connection.replies(5, self._timeout_s)
        self._check_fence(held)
        if executed is None:  # the key was touched and is ours again: it was deleted, as all else was
            raise self._emptied()

    def _check_fence(self, held: bytes | None) -> None:
        if held is None:
            raise self._emptied()
        if int(held) != self._attempt:
            raise self._stale(f"attempt {self._attempt}", f"attempt {held.decode()}")

    def _emptied(self) -> TierCorrupt:
        return TierCorrupt(
            f"Redis at {self.address.display} was emptied while training '{self.training}' published: "
            "publish all rows again"
        )

    def _forget_old(self, namespace: str, keep: int) -> None:
        versions = f"{namespace}/versions"
        old = self._redis.lrange(versions, 0, -keep - 1)
        if not old:
            return
        pipe = self._redis.pipeline(transaction=True)
        pipe.unlink(*(f"{namespace}/dense/{v.decode()}" for v in old))
        pipe.ltrim(versions, len(old), -1)
        pipe.execute()

    def _stale(self, mine: str, owner: str) -> StalePublication:
        return StalePublication(
            f"training '{self.training}': {mine} may not publish, Redis at {self.address.display} belongs to {owner}\n"
            "  a newer attempt is running. If the training was deleted and created anew instead, remove the keys "
            f"'{self._current_key}' and '{self._attempt_key}'"
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with redis_errors(self.address.display):
            yield


def _chunks(count: int) -> Iterator[slice]:
    return (slice(at, at + ROWS_PER_COMMAND) for at in range(0, count, ROWS_PER_COMMAND))


@contextmanager
def redis_errors(url: str) -> Iterator[None]:
    """Turns redis-py's errors into the tier's."""
    try:
        yield
    except redis.AuthenticationError as error:
        raise resp.refused(url, f"WRONGPASS {error}") from None
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise resp.unreachable(url, error) from None
    except redis.RedisError as error:
        raise resp.refused(url, str(error)) from None
