"""The command says what it can do without loading what it does it with."""

import inspect
import subprocess
import sys
from typing import get_args, get_type_hints

import pytest

from featuregen.importer import DialectName
from featuregen.sources import HashName
from kuberec_api.source import SaslMechanism, SecurityProtocol
from kuberec_runtime.cli.credentials import Mechanism, Protocol
from kuberec_runtime.cli.importing import import_file
from kuberec_runtime.cli.synth import synth
from kuberec_runtime.synth.stream import DEFAULT_GAP_MS, DEFAULT_START_MS

HEAVY = ("numba", "tensorflow", "keras", "ray", "pyarrow", "numpy", "pandas", "redis", "confluent_kafka", "pydantic")
BUILD = f"""
import sys
from typer.main import get_command
from kuberec_runtime.cli.main import app
get_command(app)
print(*[name for name in {HEAVY} if name in sys.modules])
"""


def test_the_parser_is_built_without_what_the_commands_need() -> None:
    done = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(("option", "known"), [("dialect", list(DialectName)), ("hash_name", list(HashName))])
def test_choices_are_those_of_the_importer(option: str, known: list[str]) -> None:
    assert list(get_args(get_type_hints(import_file)[option])) == known


def test_choices_of_credentials_are_those_of_a_source() -> None:
    assert list(get_args(Protocol)) == list(SecurityProtocol)
    assert list(get_args(Mechanism)) == list(SaslMechanism)


def test_the_stream_begins_where_the_library_lets_it_begin() -> None:
    options = inspect.signature(synth).parameters
    assert options["start_time"].default == DEFAULT_START_MS
    assert options["gap"].default == DEFAULT_GAP_MS
