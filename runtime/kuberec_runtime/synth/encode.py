"""Samples as Kafka messages: nested JSON, one sample each, or Arrow IPC streams of many samples in flat columns.

JSON is written by a numba kernel that copies prepared pieces (a user's object, an item's object, quoted names) and
writes numbers digit by digit, instead of dumping dictionaries one by one: the generator must stay out of the way of
what it is there to load.
"""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from kuberec_runtime.synth.stream import ACTIONS, Samples
from kuberec_runtime.synth.world import AGES, GENDERS, UNKNOWN, World, category_key

_SPARE = 256


class Pieces:
    """Byte strings laid end to end, for a kernel to copy from."""

    def __init__(self, texts: Sequence[str]) -> None:
        encoded = [text.encode() for text in texts]
        self.bytes = np.frombuffer(b"".join(encoded), np.uint8)
        self.offsets = np.concatenate([[0], np.cumsum([len(piece) for piece in encoded])]).astype(np.int64)
        self.longest = max(len(piece) for piece in encoded)


class JsonEncoder:
    """Writes samples of one world as JSON messages."""

    def __init__(self, world: World) -> None:
        keys = list(zip(world.user_keys, range(world.size.users), strict=True))
        self._users = Pieces(
            ['{"user":' + _compact({"user_id": key, **world.user_fields(index)}) + ',"item":' for key, index in keys]
        )
        self._items = Pieces(
            [
                _compact({"item_id": key, **world.item_fields(index)}) + ',"context":{"hour":'
                for index, key in enumerate(world.item_keys)
            ]
        )
        self._item_names = Pieces([f'"{key}",' for key in world.item_keys])
        self._category_names = Pieces([f'"{category_key(int(index))}",' for index in world.category])
        self._actions = Pieces([f'"{action}",' for action in ACTIONS])
        self._words = Pieces(
            [
                '},"behavior":{"clicks":{"item":[',
                '],"action":[',
                '],"ts":[',
                '],"cate":[',
                ']}},"now":',
                ',"label":{"click":',
                "}}",
            ]
        )
        self._per_sample = self._users.longest + self._items.longest + _SPARE
        self._per_event = (
            self._item_names.longest + self._category_names.longest + self._actions.longest + len("1790000000000,")
        )

    def encode(self, samples: Samples) -> tuple[bytes, NDArray[np.int64]]:
        """Returns all messages end to end, and int64[n + 1] offsets into them."""
        size = len(samples) * self._per_sample + len(samples.event_ts) * self._per_event
        out = np.empty(size, np.uint8)
        offsets = np.zeros(len(samples) + 1, np.int64)
        pieces = (self._users, self._items, self._item_names, self._category_names, self._actions, self._words)
        _write(
            out,
            offsets,
            tuple(piece.bytes for piece in pieces),
            tuple(piece.offsets for piece in pieces),
            samples.user,
            samples.item,
            samples.hour,
            samples.now,
            samples.click,
            samples.offsets,
            samples.event_item,
            samples.event_action,
            samples.event_ts,
        )
        return out[: offsets[-1]].tobytes(), offsets


class ArrowEncoder:
    """Lays samples of one world out as the flat columns that featuregen reads."""

    def __init__(self, world: World) -> None:
        self._user_key = pa.array(world.user_keys)
        self._age = pa.array(np.where(world.age == UNKNOWN, 0, AGES[world.age]), mask=world.age == UNKNOWN)
        genders = np.array(GENDERS, object)[world.gender]
        self._gender = pa.array(genders, pa.string(), mask=world.gender == UNKNOWN)
        categories = pa.array([category_key(index) for index in range(world.size.categories)])
        each = world.preferred.shape[1]
        self._preference = pa.MapArray.from_arrays(
            pa.array(np.arange(world.size.users + 1, dtype=np.int32) * each),
            categories.take(pa.array(world.preferred.reshape(-1))),
            pa.array(world.preference.reshape(-1)),
        )
        self._item_key = pa.array(world.item_keys)
        self._category = categories.take(pa.array(world.category))
        self._brand = pa.array([f"b{brand}" for brand in world.brand])
        self._price = pa.array(world.price)
        self._action = pa.array(ACTIONS)

    def encode(self, samples: Samples) -> pa.Table:
        """Returns one row per sample; names and types as `featuregen.schema.sample_schema` has them."""
        user, item = pa.array(samples.user), pa.array(samples.item)
        event_item = pa.array(samples.event_item)
        offsets = pa.array(samples.offsets.astype(np.int32))

        def events(values: pa.Array) -> pa.Array:
            return pa.ListArray.from_arrays(offsets, values)

        return pa.table(
            {
                "user.user_id": self._user_key.take(user),
                "user.age": self._age.take(user),
                "user.gender": self._gender.take(user),
                "user.cate_pref": self._preference.take(user),
                "item.item_id": self._item_key.take(item),
                "item.cate": self._category.take(item),
                "item.brand": self._brand.take(item),
                "item.price": self._price.take(item),
                "context.hour": pa.array(samples.hour),
                "behavior.clicks.item": events(self._item_key.take(event_item)),
                "behavior.clicks.action": events(self._action.take(pa.array(samples.event_action))),
                "behavior.clicks.ts": events(pa.array(samples.event_ts)),
                "behavior.clicks.cate": events(self._category.take(event_item)),
                "now": pa.array(samples.now),
                "label.click": pa.array(samples.click.astype(np.float32)),
            }
        )


def arrow_message(table: pa.Table) -> bytes:
    """Returns a table as one Arrow IPC stream: one Kafka message."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


@njit(nogil=True, cache=True)
def _copy(out, at, pool, start, stop):  # type: ignore[no-untyped-def]
    for k in range(start, stop):
        out[at] = pool[k]
        at += 1
    return at


@njit(nogil=True, cache=True)
def _digits(out, at, value):  # type: ignore[no-untyped-def]
    """Writes a non-negative integer in decimal."""
    length = 1
    rest = value // 10
    while rest > 0:
        length += 1
        rest //= 10
    for k in range(at + length - 1, at - 1, -1):
        out[k] = 48 + value % 10
        value //= 10
    return at + length


@njit(nogil=True, cache=True)
def _write(  # type: ignore[no-untyped-def]
    out, offsets, pools, starts, user, item, hour, now, click, event_offsets, event_item, event_action, event_ts
):
    users, items, item_names, category_names, actions, words = pools
    user_at, item_at, item_name_at, category_at, action_at, word_at = starts
    at = 0
    for n in range(len(user)):
        begin, end = event_offsets[n], event_offsets[n + 1]
        at = _copy(out, at, users, user_at[user[n]], user_at[user[n] + 1])
        at = _copy(out, at, items, item_at[item[n]], item_at[item[n] + 1])
        at = _digits(out, at, hour[n])
        # Every name carries its comma; the last one of a list is taken back.
        at = _copy(out, at, words, word_at[0], word_at[1])
        for k in range(begin, end):
            at = _copy(out, at, item_names, item_name_at[event_item[k]], item_name_at[event_item[k] + 1])
        at = _copy(out, at - (end > begin), words, word_at[1], word_at[2])
        for k in range(begin, end):
            at = _copy(out, at, actions, action_at[event_action[k]], action_at[event_action[k] + 1])
        at = _copy(out, at - (end > begin), words, word_at[2], word_at[3])
        for k in range(begin, end):
            at = _digits(out, at, event_ts[k])
            out[at] = 44
            at += 1
        at = _copy(out, at - (end > begin), words, word_at[3], word_at[4])
        for k in range(begin, end):
            at = _copy(out, at, category_names, category_at[event_item[k]], category_at[event_item[k] + 1])
        at = _copy(out, at - (end > begin), words, word_at[4], word_at[5])
        at = _digits(out, at, now[n])
        at = _copy(out, at, words, word_at[5], word_at[6])
        at = _digits(out, at, np.int64(click[n]))
        at = _copy(out, at, words, word_at[6], word_at[7])
        offsets[n + 1] = at
