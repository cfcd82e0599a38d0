"""What pods find in /etc/kuberec: an attempt's input, and the files that features read (vocabularies, tokenizers).

One projected volume, since a second one inside the folder of the first would be mounted into a read-only folder. The
operator reads no ConfigMap of the user: a pod waits until it exists, and a process compares digests when it starts.
"""

from typing import Any

from kuberec_api import RecModel
from kuberec_operator.render.pod import Volumes

FOLDER = "/etc/kuberec"
FILES = "files"


def mounted(model: RecModel, input_map: str | None = None) -> Volumes:
    """Returns the volume of `FOLDER`, none if nothing lies there.

    Args:
        model: its features' files become `files/<name>`.
        input_map: a ConfigMap whose keys lie in the folder itself.
    """
    files = [
        _part(file.config_map.name, {"key": file.config_map.key, "path": f"{FILES}/{name}"})
        for name, file in sorted(model.spec.features.files.items())
        if file.config_map is not None
    ]
    if not files:
        return {} if input_map is None else {FOLDER: {"configMap": {"name": input_map}}}
    given = [] if input_map is None else [_part(input_map)]
    return {FOLDER: {"projected": {"sources": [*given, *files]}}}


def _part(name: str, *items: dict[str, str]) -> dict[str, Any]:
    return {"configMap": {"name": name, **({"items": list(items)} if items else {})}}
