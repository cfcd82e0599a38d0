"""What a request is answered with, and its bytes as JSON, msgpack or Arrow IPC."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kuberec_runtime.serve.request import ARROW, JSON


@dataclass(frozen=True)
class Answer:
    """Scores float32[n] by task, in the order of the candidates, and what was not found.

    `missing` has only members that say something: `user` (its key), `items` (keys), `rows` (counts: `absent` were never
    learnt, `unread` did not come in time).
    """

    model: str
    version: str
    scores: Mapping[str, NDArray[np.float32]]
    missing: Mapping[str, Any] = field(default_factory=dict)
    debug: Mapping[str, Any] = field(default_factory=dict)


def encode(answer: Answer, media: str) -> bytes:
    """Returns the body in the request's media type."""
    about: dict[str, Any] = {"model": answer.model, "version": answer.version}
    rest: dict[str, Any] = {"missing": answer.missing, **({"debug": answer.debug} if answer.debug else {})}
    if media == ARROW:
        batch = pa.record_batch({task: pa.array(scores) for task, scores in answer.scores.items()})
        schema = batch.schema.with_metadata({"kuberec": msgspec.json.encode({**about, **rest})})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))
        return sink.getvalue().to_pybytes()
    body = {**about, "scores": {task: scores.tolist() for task, scores in answer.scores.items()}, **rest}
    return msgspec.json.encode(body) if media == JSON else msgspec.msgpack.encode(body)
