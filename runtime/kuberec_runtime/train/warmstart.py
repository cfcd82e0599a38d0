"""Warm start: rows and dense weights of another training's epoch, taken by name before the first sample is read.

What is taken is decided once, at the first start, by names and shapes alone, and written into epoch 0 of the training
that takes: which epoch it was, table by table and weight by weight. Offsets are never taken. Invariants:
- A table's rows are taken whole or not at all: with their optimizer state, and only where an id means the same.
- Until an epoch with rows is committed, every attempt loads the very same epoch again; once one is, none ever does. All
  rows count as changed, so the first committed epoch and the first publication hold them.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from kuberec_api.environment import WARM_PREFIX
from kuberec_api.layout import Table
from kuberec_api.training import WarmStart
from kuberec_runtime.checkpoint import (
    CheckpointError,
    CorruptFile,
    Manifest,
    ObjectMissing,
    Store,
    StoreError,
    WarmTable,
    WarmTaken,
    find_restorable,
    iter_rows,
    open_store,
)
from kuberec_runtime.models.flat import WeightShapes, by_name, joined
from kuberec_runtime.models.weights import read_weights
from kuberec_runtime.objects import under
from kuberec_runtime.table import Rows
from kuberec_runtime.table.buckets import I64, ID_BITS, split_key
from kuberec_runtime.table.dense import DenseState
from kuberec_runtime.train.job import Job
from kuberec_runtime.train.rowstate import check_row_state

TAKEN, INITIALISED, DROPPED = "Taken", "Initialised", "Dropped"


class WarmStartError(Exception):
    """There is nothing that could be taken, or no longer."""


def take(warm: WarmStart, job: Job, fresh: DenseState, shapes: WeightShapes) -> tuple[DenseState, WarmTaken]:
    """Decides what a new training takes, and returns the dense state that it begins with; errors as of `choose`."""
    if warm.uri is None:
        raise WarmStartError(
            "spec.warmStart.trainingRef is resolved by the operator; in a local run give warmStart.uri, the other "
            "training's checkpoint.uri"
        )
    store = open_source(warm.uri)
    taken, source = choose(store, job, shapes)
    return take_dense(store, source, taken, fresh, shapes), taken


def open_source(uri: str) -> Store:
    """Opens the other training's checkpoint with `KUBEREC_WARM_...` credentials, if any is set, else with our own."""
    return open_store(uri, under(WARM_PREFIX, os.environ))


def choose(store: Store, job: Job, shapes: WeightShapes) -> tuple[WarmTaken, Manifest]:
    """Decides what a new training takes.

    Args:
        store: the other training's checkpoint.
        job: the new training.
        shapes: names and shapes of its dense weights.

    Returns:
        The decision, and the epoch that it is about.

    Raises:
        WarmStartError: no epoch can be read there, or it is too old to name its tables, or nothing fits.
        OptimizerMismatchError: its rows hold the state of another optimizer.
        StoreError: the store does not answer.
    """
    try:
        plan = find_restorable(store)
    except StoreError:
        raise
    except CheckpointError as error:
        raise WarmStartError(f"warm start from {store.uri}: {error}") from error
    if plan is None or not plan.manifest.files:
        raise WarmStartError(
            f"warm start from {store.uri} holds no committed epoch\n"
            "  give the checkpoint.uri of a training that has committed one, or leave spec.warmStart away"
        )
    manifest = plan.manifest
    if not manifest.tables or manifest.plan is None:
        raise WarmStartError(
            f"epoch {manifest.epoch} of {store.uri} does not name its tables: it was written by an older release\n"
            "  let this release commit one more epoch there first"
        )
    check_row_state(manifest, job.model.spec.embeddings.defaults.optimizer)
    tables = tuple(judge_tables(manifest, job.layout.tables, job.plan.canonical))
    known = {weight.name: tuple(weight.shape) for weight in manifest.weights}
    taken = tuple(name for name, shape in shapes if known.get(name) == tuple(shape))
    if not taken and not any(table.verdict == TAKEN for table in tables):
        raise WarmStartError(
            f"epoch {manifest.epoch} of {store.uri} has no table and no dense weight that this model could take\n"
            "  tables: " + "; ".join(f"{t.name}: {t.reason}" for t in tables)
        )
    fresh = tuple(name for name, _ in shapes if name not in taken)
    ref = WarmTaken(
        uri=store.uri,
        manifest=plan.committed.manifest,
        epoch=manifest.epoch,
        attempt=manifest.attempt,
        tables=tables,
        weights_taken=taken,
        weights_initialised=fresh,
    )
    return ref, manifest


def judge_tables(source: Manifest, mine: Mapping[str, Table], plan: Mapping[str, object]) -> Iterator[WarmTable]:
    """Yields what happens to every table of the model, and to those that only the source has."""
    theirs = {table.name: table for table in source.tables}
    for name, table in mine.items():
        old = theirs.get(name)
        if old is None:
            yield WarmTable(name=name, verdict=INITIALISED, reason="the source has no such table")
        elif (old.dim, old.linear) != (table.dim, table.linear):
            reason = f"dim {old.dim}{_linear(old.linear)} there, {table.dim}{_linear(table.linear)} here"
            yield WarmTable(name=name, verdict=INITIALISED, reason=reason)
        elif (there := _id_space(source.plan, name)) != (here := _id_space(plan, name)):
            yield WarmTable(name=name, verdict=INITIALISED, reason=f"ids are {there} there, {here} here")
        else:
            yield WarmTable(name=name, verdict=TAKEN, ordinal=old.ordinal, becomes=table.ordinal)
    for name in theirs:
        if name not in mine:
            yield WarmTable(name=name, verdict=DROPPED, reason="this model has no such table")


def take_dense(store: Store, source: Manifest, ref: WarmTaken, fresh: DenseState, shapes: WeightShapes) -> DenseState:
    """Returns the dense state to begin with: weights and moments of the source by name, else the fresh ones."""
    if not ref.weights_taken:
        return fresh
    old = read_weights(store, source)
    theirs = {"weights": old.flat, **old.moments}

    def merged(name: str, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        named = by_name(shapes, vector)
        if name in theirs:
            there = by_name(old.shapes, theirs[name])
            named |= {weight: there[weight] for weight in ref.weights_taken}
        return joined(shapes, named).astype(np.float32)

    return DenseState(merged("weights", fresh.weights), merged("m", fresh.m), merged("v", fresh.v), old.step)


def warm_rows(store: Store, source: Manifest, ref: WarmTaken) -> Iterator[tuple[int, Rows]]:
    """Yields (width, rows) of the tables that are taken, under their new keys and in the order of the chain.

    A key's shard and bucket follow from its new ordinal, so every shard reads all files and keeps what is its own.

    Raises:
        CorruptFile: a file is missing or broken.
    """
    becomes = np.full(1 + max(table.ordinal for table in source.tables), -1, np.int64)
    for table in ref.tables:
        if table.verdict == TAKEN:
            becomes[table.ordinal] = table.becomes
    for file, keys, raw in iter_rows(store, source):
        ordinals, ids = split_key(keys)
        new = becomes[ordinals]
        kept = np.flatnonzero(new >= 0)
        renamed: I64 = (new[kept] << np.int64(ID_BITS)) | ids[kept]
        if not kept.size:
            continue
        if raw is None:
            yield file.width, Rows(np.zeros(0, np.int64), np.zeros((0, 0), np.float32), renamed)
        else:
            yield file.width, Rows(renamed, np.ascontiguousarray(raw[kept]))


@contextmanager
def readable(taken: WarmTaken) -> Iterator[None]:
    """Says of a file that is gone or broken whose it is.

    Raises:
        WarmStartError: in place of `CorruptFile` and `ObjectMissing`.
    """
    try:
        yield
    except (CorruptFile, ObjectMissing) as error:
        raise WarmStartError(
            f"epoch {taken.epoch} of {taken.uri}, which this training begins with, cannot be read: {error}\n"
            "  bring its files back, or start anew under another checkpoint.uri"
        ) from error


def summary(ref: WarmTaken) -> str:
    """One line for the log: what was taken, what begins anew and why."""
    taken = [table.name for table in ref.tables if table.verdict == TAKEN]
    rest = [f"{table.name} ({table.verdict.lower()}: {table.reason})" for table in ref.tables if table.verdict != TAKEN]
    weights = f"{len(ref.weights_taken)} of {len(ref.weights_taken) + len(ref.weights_initialised)} dense weights"
    return f"from epoch {ref.epoch} of {ref.uri}: tables {', '.join(taken) or 'none'}; {weights}; " + (
        f"not taken: {', '.join(rest)}" if rest else "nothing left out"
    )


def _id_space(plan: object, table: str) -> str:
    """What the ids of a table mean, as far as rows are concerned: their encoders, and the hash if there is one."""
    assert isinstance(plan, Mapping)
    features = [f for f in plan["features"] if f.get("table") == table]
    spaces = {
        json.dumps({k: v for k, v in f.items() if k == "buckets" or k.startswith(("encoder", "boundaries", "hash"))})
        for f in features
    }
    hashed = any(f.get("encoder.kind") == "hash" for f in features)
    return " and ".join(sorted(spaces)) + (f" by {plan['hash']}" if hashed else "")


def _linear(linear: bool) -> str:
    return " with a linear weight" if linear else ""
