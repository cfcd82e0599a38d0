"""How an object store is opened from a URI and an environment: one reading of credentials for checkpoints and samples.

Retries are capped, for obstore's default of 10 hides a dead endpoint for 3 minutes.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from obstore.store import from_url

if TYPE_CHECKING:
    from obstore.store import ObjectStore, RetryConfig

RETRY: "Final[RetryConfig]" = {
    "max_retries": 5,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
}
REMOTE_SCHEMES = {"s3": "AWS_", "s3a": "AWS_", "gs": "GOOGLE_", "az": "AZURE_", "abfs": "AZURE_", "abfss": "AZURE_"}
_SETTINGS = {
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CLIENT_ID",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_STORAGE_TENANT_ID",
    "AZURE_STORAGE_SAS_KEY",
}


def under(prefix: str, env: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables with a prefix, by their names without it; the whole environment if there are none."""
    own = {name.removeprefix(prefix): value for name, value in env.items() if name.startswith(prefix)}
    return own or dict(env)


def open_remote(uri: str, env: Mapping[str, str]) -> "ObjectStore":
    """Opens the store behind a remote URI, with the URI's path as its prefix.

    Args:
        uri: its scheme is one of `REMOTE_SCHEMES`.
        env: credentials and endpoint by their usual names.

    Raises:
        obstore.exceptions.BaseError: the configuration is refused.
    """
    family = REMOTE_SCHEMES[uri.partition("://")[0]]
    config: dict[str, Any] = {
        name.lower(): value for name, value in env.items() if name.startswith(family) and name in _SETTINGS and value
    }
    options: dict[str, Any] = {"timeout": "120s", "connect_timeout": "5s"}
    endpoint = env.get("AWS_ENDPOINT") or env.get("AWS_ENDPOINT_URL") or ""
    if family == "AWS_":
        config.setdefault("aws_region", env.get("AWS_DEFAULT_REGION") or "us-east-1")
        if endpoint:
            config["aws_endpoint"] = endpoint
            config["aws_virtual_hosted_style_request"] = False
            options["allow_http"] = endpoint.startswith("http://")
    return from_url(uri, config=config, client_options=options, retry_config=RETRY)  # type: ignore[call-overload]
