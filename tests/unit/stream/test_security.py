"""Client settings from a file: what is read, and what is refused without showing a secret."""

from pathlib import Path

import pytest

from kuberec_runtime.stream.ends import read_ends
from kuberec_runtime.stream.security import KafkaPropertiesError, read_properties


def test_a_file_of_settings_is_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_text("# ours\n\nsecurity.protocol = SASL_SSL\nsasl.password=a=b #c\n")
    assert read_properties(file) == {"security.protocol": "SASL_SSL", "sasl.password": "a=b #c"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sasl.username=me\nits-secret\n", "line 2: write name=value"),
        ("sasl.jaas.config=x password='its-secret';\n", "line 1: sasl.jaas.config is the Java client's"),
        ("ssl.truststore.location=/its-secret.jks\n", "line 1: ssl.truststore.location is the Java client's"),
    ],
)
def test_a_line_that_is_no_setting_is_named_by_its_number(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "client.properties"
    file.write_text(text)
    with pytest.raises(KafkaPropertiesError, match=told) as error:
        read_properties(file)
    assert "its-secret" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KafkaPropertiesError, match="nowhere cannot be read"):
        read_properties(tmp_path / "nowhere")


def test_a_setting_that_does_not_exist_is_named() -> None:
    with pytest.raises(KafkaPropertiesError, match=r"sasl\.pasword"):
        read_ends("127.0.0.1:1", "feed", settings={"sasl.pasword": "its-secret"})
