"""The command line: `python -m kuberec_devcluster --help`."""

import signal
import subprocess
import sys
import threading
from typing import Annotated

import typer

from kuberec_devcluster import own_cluster, toolchain
from kuberec_devcluster.cluster import Cluster
from kuberec_devcluster.control_plane import ControlPlane, KubectlError
from kuberec_devcluster.daemons import Record
from kuberec_devcluster.images import ImageError
from kuberec_devcluster.processes import ServerError
from kuberec_devcluster.progress import console, say
from kuberec_devcluster.services import S3, Kafka, Redis

app = typer.Typer(
    help="Real servers and a real Kubernetes on this machine, without Docker.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.command()
def setup(
    services: Annotated[bool, typer.Option("--services", help="only Kafka, Redis and S3")] = False,
    control_plane: Annotated[bool, typer.Option("--control-plane", help="only etcd and kube-apiserver")] = False,
) -> None:
    """Installs and builds what the tests and the cluster need; what is there already costs nothing."""
    own = own_cluster.chosen()
    everything = not (services or control_plane)
    if everything and own is not None:
        say(f"KUBECONFIG is set ({own}): nothing to build for a cluster of our own")
        return
    toolchain.setup(services=services or everything, control_plane=control_plane or everything, node=everything)


@app.command()
def services() -> None:
    """Runs Kafka, Redis and S3 in the foreground until Ctrl-C, and prints their addresses."""
    with Kafka() as kafka, Redis() as redis, S3() as s3:
        print(f"export KAFKA_BOOTSTRAP={kafka.bootstrap} REDIS_URL={redis.url}")
        print("export " + " ".join(f"{key}={value}" for key, value in s3.aws_environment.items()), flush=True)
        _wait_for_the_end()


@app.command()
def up(
    control_plane: Annotated[bool, typer.Option("--control-plane", help="only the API, in the foreground")] = False,
    images: Annotated[bool, typer.Option(help="build and import the operator's and the runtime's image")] = True,
) -> None:
    """Brings the one-node cluster up; safe to repeat, and goes on where a killed `up` stopped."""
    if control_plane:
        with ControlPlane() as api:
            print(f"export KUBECONFIG={api.kubeconfig}", flush=True)
            _wait_for_the_end()
        return
    own = own_cluster.chosen()
    if own is not None:
        own_cluster.check(own)
        return
    Cluster.here().up(with_images=images)


@app.command()
def down() -> None:
    """Takes the cluster down and cleans up processes, mounts and network; caches stay."""
    own = own_cluster.chosen()
    if own is not None:
        say(f"KUBECONFIG is set ({own}): that cluster is yours and stays")
    Cluster.here().down()


@app.command()
def status() -> None:
    """Shows every process, the node and the pods."""
    cluster = Cluster.here()
    records = Record.all(cluster.state)
    if not records:
        say("the cluster is down; bring it up with `python -m kuberec_devcluster up`")
        raise typer.Exit(1)
    for record in records:
        state = f"up {record.uptime_seconds():8.0f} s" if record.alive() else "ENDED"
        print(f"{record.name:26} pid {record.pid:<8} {state}")
    print(cluster.kubectl("get", "nodes,pods", "-A", "-o", "wide"))


@app.command()
def kubeconfig() -> None:
    """Prints the path of the kubeconfig to use."""
    print(own_cluster.chosen() or Cluster.here().kubeconfig)


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="a process that `status` lists")],
    follow: Annotated[bool, typer.Option("-f", "--follow")] = False,
) -> None:
    """Shows the log of one of the cluster's processes."""
    log = Cluster.here().state / "logs" / f"{name}.log"
    if not log.exists():
        known = sorted(path.stem for path in log.parent.glob("*.log"))
        raise ServerError(f"no log of {name!r}; there are: {', '.join(known) or 'none'}")
    command = ["tail", *(["-f"] if follow else []), "-n", "100", str(log)]
    subprocess.run(command, check=False)


def _wait_for_the_end() -> None:
    ended = threading.Event()
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, lambda *_: ended.set())
    ended.wait()


def main() -> None:
    try:
        app()
    except (toolchain.ToolError, ServerError, KubectlError, ImageError) as problem:
        console.print(f"error: {problem}", markup=False, style="red")
        sys.exit(1)


if __name__ == "__main__":
    main()
