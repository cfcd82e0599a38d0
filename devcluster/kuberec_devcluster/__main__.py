"""The command line: `python -m kuberec_devcluster --help`."""

import sys
from typing import Annotated

import typer

from kuberec_devcluster import toolchain
from kuberec_devcluster.processes import ServerError

app = typer.Typer(help="Real servers and a real Kubernetes on this machine, without Docker.", no_args_is_help=True)


@app.callback()
def devcluster() -> None:
    """Real servers and a real Kubernetes on this machine, without Docker."""


@app.command()
def setup(
    services: Annotated[bool, typer.Option("--services", help="only Kafka, Redis and S3")] = False,
    control_plane: Annotated[bool, typer.Option("--control-plane", help="only etcd and kube-apiserver")] = False,
) -> None:
    """Installs and builds what the tests and the cluster need; what is there already costs nothing."""
    everything = not (services or control_plane)
    toolchain.setup(services=services or everything, control_plane=control_plane or everything, node=everything)


def main() -> None:
    try:
        app()
    except (toolchain.ToolError, ServerError) as problem:
        sys.exit(f"error: {problem}")


if __name__ == "__main__":
    main()
