"""A synthetic stream of impressions whose best possible AUC is known: for the demo, the tests and a first try."""

from kuberec_runtime.synth.filesink import ParquetSink
from kuberec_runtime.synth.oracle import Oracle, Report
from kuberec_runtime.synth.run import Progress, run
from kuberec_runtime.synth.sink import KafkaSink, SinkError, StoreSink
from kuberec_runtime.synth.stream import EFFECTS, Samples, Stream
from kuberec_runtime.synth.world import Size, World, make_world

__all__ = [
    "EFFECTS",
    "KafkaSink",
    "Oracle",
    "ParquetSink",
    "Progress",
    "Report",
    "Samples",
    "SinkError",
    "Size",
    "StoreSink",
    "Stream",
    "World",
    "make_world",
    "run",
]
