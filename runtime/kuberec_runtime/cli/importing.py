"""`kuberec import`: an fg.json of EasyRec or TorchEasyRec, printed as a RecModel that `kuberec validate` accepts."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from featuregen.importer import Imported
    from featuregen.sources import FieldType


def import_file(
    file: Annotated[Path, typer.Argument(help="fg.json")],
    dialect: Annotated[Literal["pyfg", "rtp"], typer.Option(help="Whose defaults it was written for")],
    hash_name: Annotated[Literal["farm64", "std64"], typer.Option("--hash", help="The hash of its ids")],
    pipeline: Annotated[Path | None, typer.Option(help="pipeline.config: embeddings, network, bucketizers")] = None,
    name: Annotated[str, typer.Option(help="Name of the RecModel")] = "imported",
    user_key: Annotated[str, typer.Option(help="Field that identifies a user")] = "user_id",
    item_key: Annotated[str, typer.Option(help="Field that identifies an item")] = "item_id",
    field: Annotated[list[str] | None, typer.Option(help="Type of a field, e.g. user.age=int")] = None,
    behavior: Annotated[list[str] | None, typer.Option(help="Sequence that reads logged events")] = None,
    files: Annotated[Path | None, typer.Option(help="Folder of vocabularies and tokenizers; that of fg.json")] = None,
) -> None:
    """Print an fg.json of EasyRec or TorchEasyRec as a RecModel; what has no exact counterpart is an error."""
    from featuregen.importer import DialectName, ImportFailedError, import_fg
    from featuregen.sources import HashName

    folder = files or file.parent
    try:
        imported = import_fg(
            file.read_text(),
            DialectName(dialect),
            HashName(hash_name),
            pipeline_config=pipeline.read_text() if pipeline else None,
            user_key=user_key,
            item_key=item_key,
            field_types=_field_types(field or []),
            behaviors=behavior or [],
            read_file=lambda path: _content(folder, path),
        )
    except ImportFailedError as error:
        _print(str(one) for one in error.errors)
        _print([f"{file}: {len(error.errors)} errors, nothing was imported"])
        raise typer.Exit(78) from None
    except (OSError, UnicodeDecodeError) as error:
        _print([f"error: {error}"])
        raise typer.Exit(78) from None
    check_network(imported, name)
    _print(f"note: {note}" for note in imported.notes)
    print(imported.text(name), end="")


def check_network(imported: "Imported", name: str) -> None:
    """Keeps the network only if features and network are one valid RecModel; says why not otherwise."""
    from pydantic import ValidationError

    from featuregen.compiler import compile_plan
    from kuberec_api import RecModel
    from kuberec_api.layout import NetworkError, build_layout

    if imported.model.network is None:
        return
    try:
        model = RecModel.model_validate(imported.document(name))
        build_layout(model.spec, compile_plan(model.spec.features))
    except ValidationError as error:
        first = error.errors()[0]
        imported.drop_network(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")
    except NetworkError as error:
        imported.drop_network(" ".join(str(error).split()))


def _field_types(given: Sequence[str]) -> dict[str, "FieldType"]:
    from featuregen.sources import FieldType

    found = {}
    for one in given:
        ref, _, kind = one.partition("=")
        if kind not in {known.value for known in FieldType}:
            known = ", ".join(known.value for known in FieldType)
            raise typer.BadParameter(f"--field {one}: write user.<field>=<type>, with a type of {known}")
        found[ref] = FieldType(kind)
    return found


def _content(folder: Path, path: str) -> bytes | None:
    """The file as it is named, or else by its last name: exported models keep their assets in one folder."""
    for place in (folder / path, folder / Path(path).name):
        if place.is_file():
            return place.read_bytes()
    return None


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)
