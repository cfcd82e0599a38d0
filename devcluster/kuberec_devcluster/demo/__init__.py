"""The whole line on one machine, in under three minutes: Kafka, training on shards and workers, Redis, ranking."""
