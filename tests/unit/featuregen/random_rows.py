"""Random rows that fit a plan: odd values and odd lists, for the columns that the plan reads.

Values are mostly of a few words and numbers, so that maps, lists, logs and candidates have some in common.
"""

from collections.abc import Callable
from random import Random
from typing import Any

from featuregen.plan import Input, Plan

Value = Callable[[Random], Any]
NOW = 1_000_000
SOURCES: dict[str, Any] = {
    "user": {
        "key": "uid",
        "fields": {
            "us": "string",
            "ui": "int",
            "uf": "float",
            "uls": "list<string>",
            "uli": "list<int>",
            "ulf": "list<float>",
            "ulls": "list<list<string>>",
            "ullf": "list<list<float>>",
            "um": "map<string,float>",
            "ums": "map<string,string>",
            "umv": "map<string,list<float>>",
            "umm": "map<string,map<string,float>>",
            "umt": "map<string,map<string,string>>",
        },
    },
    "item": {
        "key": "iid",
        "fields": {
            "xs": "string",
            "xi": "int",
            "xf": "float",
            "xls": "list<string>",
            "xli": "list<int>",
            "xlf": "list<float>",
            "xm": "map<string,float>",
            "xms": "map<string,string>",
            "xmv": "map<string,list<float>>",
            "xmm": "map<string,map<string,float>>",
            "xmt": "map<string,map<string,string>>",
        },
    },
    "context": {
        "fields": {
            "cs": "string",
            "ci": "int",
            "cf": "float",
            "clf": "list<float>",
            "p": "int",
            "ps": "list<string>",
            "pf": "float",
            "plf": "list<float>",
        },
        "perItem": ["p", "ps", "pf", "plf"],
    },
    "behavior": {"log": {"maxEvents": 4, "maxAge": "10s", "fields": {"paid": "float", "qty": "int", "kind": "string"}}},
}
WORDS = ["a", "b", "c", "1", "07"]
TEXTS = [
    "2",
    "a b",
    "True",
    "TRUE",
    "é中",
    "\uff21\uff22\u3000漢字",
    "red shoes",
    "-5",
    "x" * 20,
    "x" * 40,
    "y" * 70,
    "",
    None,
]
INTS = [0, 1, 2, 3, 7, -1, 10, 2**53 + 1, 2**62, -(2**63), None]
FLOATS = [0.0, -0.0, 1e-12, 1e300, -1e300, 5e-324, float("inf"), float("-inf"), float("nan"), None]


def _text(rng: Random) -> Any:
    """Mostly a word, so that maps, lists and candidates have some in common."""
    return rng.choice(WORDS if rng.random() < 0.7 else TEXTS)


def _int(rng: Random) -> Any:
    return rng.randrange(4) if rng.random() < 0.5 else rng.choice(INTS)


def _float(rng: Random) -> Any:
    kind = rng.random()
    if kind < 0.6:
        return rng.choice([0.1, 0.5, 1.0, 2.5, -3.0, 7.75, 1e16, -1e16])
    return rng.uniform(-10, 10) if kind < 0.8 else rng.choice(FLOATS)


def _list(of: Value) -> Value:
    return lambda rng: None if rng.random() < 0.08 else [of(rng) for _ in range(rng.choice([0, 1, 2, 2, 3, 3, 6]))]


def _map(of: Value) -> Value:
    """Pairs, so that a key may come twice."""

    def made(rng: Random) -> Any:
        if rng.random() < 0.08:
            return None
        return [(rng.choice([*WORDS, *WORDS, "", "x" * 40]), of(rng)) for _ in range(rng.randrange(7))]

    return made


VALUES: dict[str, Value] = {
    "string": _text,
    "int": _int,
    "float": _float,
    "list<string>": _list(_text),
    "list<int>": _list(_int),
    "list<float>": _list(_float),
    "list<list<string>>": _list(_list(_text)),
    "list<list<float>>": _list(_list(_float)),
    "map<string,float>": _map(_float),
    "map<string,string>": _map(_text),
    "map<string,list<float>>": _map(_list(_float)),
    "map<string,map<string,float>>": _map(_map(_float)),
    "map<string,map<string,string>>": _map(_map(_text)),
}


def random_rows(rng: Random, plan: Plan, candidates: int) -> list[dict[str, Any]]:
    """Rows of one user and request with several candidates: what is the user's is equal in all of them."""
    events = rng.randint(0, 7)
    user = {"now": NOW} | {
        column.name: _log(rng, column, events) if column.is_list else VALUES[column.type.value](rng)
        for column in plan.inputs
        if not column.of_candidate and column.name != "now"
    }
    own = [column for column in plan.inputs if column.of_candidate]
    return [user | {column.name: VALUES[column.type.value](rng) for column in own} for _ in range(candidates)]


_AGES = [-1, 0, 1, 500, 501, 700, 999, 1000, 1001, 1500, 2000, 2001, 5000, 10_000, 10_001]


def _log(rng: Random, column: Input, events: int) -> Any:
    """A list of a behaviour: mostly as long as the others, sometimes absent or not aligned."""
    of = VALUES[column.type.value]
    if column.name.endswith(".ts"):
        return None if rng.random() < 0.05 else [_time(rng) for _ in range(events)]
    if column.name.endswith(".action"):
        of = _action
    length = events if rng.random() < 0.9 else rng.randrange(4)
    return None if rng.random() < 0.05 else [of(rng) for _ in range(length)]


def _time(rng: Random) -> int | None:
    return None if rng.random() < 0.05 else NOW - rng.choice(_AGES)


def _action(rng: Random) -> str | None:
    return rng.choice(["click", "click", "buy", "", None])
