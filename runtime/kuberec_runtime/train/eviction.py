"""From `embeddings.defaults.eviction` to what one shard evicts by: budgets are the model's, a shard has its share."""

from featuregen.spec import duration_ms
from kuberec_api.meta import bytes_of
from kuberec_api.model import Eviction
from kuberec_runtime.table.eviction import EvictionRule


def rule_of(eviction: Eviction | None, shards: int) -> EvictionRule | None:
    """The rule of one of `shards` shards, None if nothing is evicted; keys spread evenly, so shares are equal."""
    if eviction is None:
        return None
    return EvictionRule(
        idle_s=0 if eviction.idle is None else max(duration_ms(eviction.idle) // 1000, 1),
        rows=0 if eviction.max_rows is None else max(eviction.max_rows // shards, 1),
        bytes=0 if eviction.max_bytes is None else max(bytes_of(eviction.max_bytes) // shards, 1),
        half_life_s=max(duration_ms(eviction.half_life) // 1000, 1),
    )
