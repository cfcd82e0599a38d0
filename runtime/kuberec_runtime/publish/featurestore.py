"""The online feature store: user fields, item fields and behaviour in Redis, written by pipelines, read by replicas.

kr:<namespace>/user/<key>, kr:<namespace>/item/<key>      msgpack map: field -> value
kr:<namespace>/behavior/<name>/<user key>                 list of msgpack [item, action, ts ms], oldest first, capped;
                                                          a fourth member maps the event's own fields to their values
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import msgpack  # type: ignore[import-untyped]
import redis

from kuberec_runtime.publish.errors import TierCorrupt
from kuberec_runtime.publish.resp import parse_address
from kuberec_runtime.publish.tier import redis_errors

Fields = Mapping[str, Any]
_BATCH = 2000


@dataclass(frozen=True)
class Event:
    """One event of a user's behaviour; `ts` in milliseconds since the epoch, `fields` the event's own."""

    user: str
    item: str
    action: str
    ts: int
    fields: Fields = field(default_factory=dict)


class FeatureStore:
    """Feature store of one Kubernetes namespace. Safe for threads; raises as `Tier` does."""

    def __init__(
        self, url: str, namespace: str = "default", password: str | None = None, timeout_s: float = 5.0
    ) -> None:
        self._display = parse_address(url).display
        self._root = f"kr:{namespace}"
        self._redis: Any = redis.Redis.from_url(
            url, password=password, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, protocol=2
        )

    def put_users(self, users: Mapping[str, Fields]) -> None:
        """Writes the fields of users by key; a user's fields are replaced as a whole."""
        self._put("user", users)

    def put_items(self, items: Mapping[str, Fields]) -> None:
        """Writes the fields of items by key; an item's fields are replaced as a whole."""
        self._put("item", items)

    def append_behavior(self, name: str, events: Iterable[Event], cap: int = 1000, ttl_s: int | None = None) -> None:
        """Appends events, in time order for each user; a user's newest `cap` remain, for `ttl_s` after the last."""
        pending = iter(events)
        while batch := list(islice(pending, _BATCH)):
            by_user: dict[str, list[bytes]] = {}
            for event in batch:
                own = [dict(event.fields)] if event.fields else []
                packed = msgpack.packb([event.item, event.action, event.ts, *own])
                by_user.setdefault(event.user, []).append(packed)
            with redis_errors(self._display):
                pipe = self._redis.pipeline(transaction=False)
                for user, packs in by_user.items():
                    key = f"{self._root}/behavior/{name}/{user}"
                    pipe.rpush(key, *packs)
                    pipe.ltrim(key, -cap, -1)
                    if ttl_s:
                        pipe.expire(key, ttl_s)
                pipe.execute()

    def user(self, key: str) -> dict[str, Any] | None:
        """Returns a user's fields, None if unknown."""
        with redis_errors(self._display):
            value = self._redis.get(f"{self._root}/user/{key}")
        return None if value is None else self._unpack(value, "user", key)

    def items(self, keys: Sequence[str]) -> list[dict[str, Any] | None]:
        """Returns the fields of items in one round trip, None for unknown ones."""
        values = self.packed_items(keys)
        return [None if v is None else self.unpack_item(k, v) for k, v in zip(keys, values, strict=True)]

    def packed_items(self, keys: Sequence[str]) -> list[bytes | None]:
        """Returns items as they are stored, for a reader that unpacks only what has changed."""
        if not keys:
            return []
        with redis_errors(self._display):
            values: list[bytes | None] = self._redis.mget([f"{self._root}/item/{key}" for key in keys])
        return values

    def unpack_item(self, key: str, value: bytes) -> dict[str, Any]:
        """Returns the fields of an item.

        Raises:
            TierCorrupt: it is no map.
        """
        return self._unpack(value, "item", key)

    def behavior(self, name: str, key: str, count: int) -> dict[str, list[Any]]:
        """Returns a user's newest `count` events, oldest first: lists `item`, `action`, `ts` and own fields."""
        return self.snapshot(key, {name: count}, with_user=False)[1][name]

    def snapshot(
        self, key: str, behaviors: Mapping[str, int], with_user: bool = True
    ) -> tuple[dict[str, Any] | None, dict[str, dict[str, list[Any]]]]:
        """Returns a user's fields and behaviours (name -> newest n events) in one round trip."""
        with redis_errors(self._display):
            pipe = self._redis.pipeline(transaction=False)
            if with_user:
                pipe.get(f"{self._root}/user/{key}")
            for name, count in behaviors.items():
                pipe.lrange(f"{self._root}/behavior/{name}/{key}", -count, -1)
            replies = pipe.execute()
        value = replies.pop(0) if with_user else None
        fields = None if value is None else self._unpack(value, "user", key)
        out: dict[str, dict[str, list[Any]]] = {}
        for name, packs in zip(behaviors, replies, strict=True):
            try:
                events = [msgpack.unpackb(p) for p in packs]
                own = [e[3] if len(e) > 3 else {} for e in events]
                out[name] = {
                    **{name: [fields.get(name) for fields in own] for name in dict.fromkeys(chain.from_iterable(own))},
                    "item": [e[0] for e in events],
                    "action": [e[1] for e in events],
                    "ts": [e[2] for e in events],
                }
            except (ValueError, IndexError, TypeError, AttributeError, msgpack.UnpackException) as error:
                raise TierCorrupt(f"behavior '{name}' of user '{key}' does not parse: {error!r}") from None
        return fields, out

    def close(self) -> None:
        """Closes all connections."""
        self._redis.close()

    def _put(self, kind: str, entities: Mapping[str, Fields]) -> None:
        pending = iter(entities.items())
        while batch := list(islice(pending, _BATCH)):
            values = {f"{self._root}/{kind}/{key}": msgpack.packb(dict(fields)) for key, fields in batch}
            with redis_errors(self._display):
                self._redis.mset(values)

    def _unpack(self, value: bytes, kind: str, key: str) -> dict[str, Any]:
        try:
            fields = msgpack.unpackb(value)
            if not isinstance(fields, dict):
                raise ValueError("not a map")
            return fields
        except (ValueError, msgpack.UnpackException) as error:
            raise TierCorrupt(f"{kind} '{key}' in the feature store does not parse: {error!r}") from None
