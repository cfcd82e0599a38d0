"""Asks a serving's replicas which version they serve and how fresh it is; a question that may go unanswered."""

import logging

import aiohttp

from kuberec_api import RecServing
from kuberec_operator.plan.observed import Replicas
from kuberec_operator.render.rayservice import service_url

TIMEOUT_S = 2.0
logger = logging.getLogger(__name__)


async def ask(serving: RecServing) -> Replicas:
    """Returns what `GET /v1/models/<name>` says, or nothing if it does not say it within two seconds."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(service_url(serving)) as answer:
            body = await answer.json() if answer.status == 200 else {}
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        logger.debug("%s does not answer: %s", service_url(serving), error)
        return Replicas()
    version, freshness = body.get("version"), body.get("freshnessSeconds")
    return Replicas(
        version=str(version) if version else None,
        freshness_s=float(freshness) if isinstance(freshness, int | float) else None,
    )
