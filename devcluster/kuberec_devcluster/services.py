"""The three servers that the tests and the demo talk to, in one place to import from."""

from kuberec_devcluster.kafka import Kafka, Listener
from kuberec_devcluster.processes import ServerError
from kuberec_devcluster.redis import Redis
from kuberec_devcluster.s3 import S3

__all__ = ["Kafka", "Listener", "Redis", "S3", "ServerError"]
