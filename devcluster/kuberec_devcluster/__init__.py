"""Real servers on one machine: Kafka, Redis, S3 and a one-node Kubernetes, for the demo and the tests.

Nothing here is part of the distribution, and nothing here is a fake: what passes against these servers
passes against the ones in production. Users with a cluster of their own never need it.
"""
