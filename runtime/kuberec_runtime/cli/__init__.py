"""The `kuberec` command: run resources locally, write synthetic samples, look at checkpoints."""

from kuberec_runtime.cli.main import app

__all__ = ["app"]
