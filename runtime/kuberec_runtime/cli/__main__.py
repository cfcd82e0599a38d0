"""`python -m kuberec_runtime.cli`: the command where its script is not on the path, as in a pod."""

from kuberec_runtime.cli import app

app()
