"""Files that a plan names: read from a folder, compared with their digest, and vocabularies parsed.

The digest is in the plan and the place is not, so that a pod, a local run and a replay may each keep them elsewhere and
still compute the same bits, or refuse to start.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from featuregen.errors import FeatureError
from featuregen.plan import Encoder, Plan

FOLDER_VARIABLE, DEFAULT_FOLDER = "KUBEREC_FILES", "/etc/kuberec/files"


def read_files(plan: Plan, folder: str | Path | None = None) -> dict[str, bytes]:
    """Returns the content of every file of a plan, by name; reads nothing if it has none.

    Args:
        plan: the plan.
        folder: holds a file `<name>`, or `<name>.<extension>`, for each; `$KUBEREC_FILES` or /etc/kuberec/files unless
            given.

    Raises:
        FeatureError: naming a file that is absent, or has another content than the plan says.
    """
    place = Path(folder or os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)
    found = {}
    for file in plan.files:
        path = _find(place, file.name)
        try:
            content = path.read_bytes()
        except OSError as error:
            hint = f"files are read from the folder of --files, or ${FOLDER_VARIABLE}, by the name in the spec's files"
            raise FeatureError(None, f"file '{file.name}': cannot read {path}: {error.strerror}", hint) from None
        digest = hashlib.sha256(content).hexdigest()
        if digest != file.sha256:
            hint = "restore the file, or write its digest into the spec's files: that is another plan"
            raise FeatureError(
                None, f"file '{file.name}': {path} has sha256 {digest}, the plan says {file.sha256}", hint
            )
        found[file.name] = content
    return found


def _find(folder: Path, name: str) -> Path:
    exact = folder / name
    others = [] if exact.exists() else sorted(folder.glob(f"{name}.*"))
    if len(others) > 1:
        found = " and ".join(str(path) for path in others[:2])
        raise FeatureError(None, f"file '{name}': there are {found}", f"rename the right one to {exact}")
    return others[0] if others else exact


def vocabulary(encoder: Encoder, files: Mapping[str, bytes]) -> dict[str, int]:
    """Returns word -> id of a `vocab` encoder: its own words, or those of its file.

    A line of the file is a word, whose id is the line's number from 0, or `word id`; not both in one file. An empty
    line counts as a line; space around a line does not.

    Raises:
        FeatureError: naming the file and the line that cannot be read.
    """
    if encoder.file is None:
        return dict(encoder.words)
    name = encoder.file.name
    try:
        lines = files[name].decode().split("\n")
    except UnicodeDecodeError as error:
        raise FeatureError(None, f"file '{name}': {error}", "a vocabulary is UTF-8") from None
    entries = [(number, line.strip(), line.split()) for number, line in enumerate(lines) if line.strip()]
    numbered = [len(parts) == 2 and parts[1].isascii() and parts[1].isdigit() for _, _, parts in entries]
    if any(numbered) and not all(numbered):
        number, line, _ = entries[numbered.index(False)]
        other = entries[numbered.index(True)][1]
        hint = "write an id on every line, or on none"
        raise FeatureError(None, f"file '{name}', line {number + 1}: '{line}' has no id, '{other}' has one", hint)
    words: dict[str, int] = {}
    for number, line, parts in entries:
        word, found = (parts[0], int(parts[1])) if any(numbered) else (line, number)
        if word in words:
            raise FeatureError(None, f"file '{name}', line {number + 1}: '{word}' is there twice", "remove one")
        if found >= encoder.buckets:
            hint = f"vocabSize is {encoder.buckets}: raise it"
            raise FeatureError(None, f"file '{name}', line {number + 1}: the id {found} of '{word}' is too large", hint)
        words[word] = found
    return words
