"""fields: durations, sizes, secrets and TLS blocks as users write them."""

import ssl
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from collector.fields import (
    ByteSize,
    ClientTLS,
    Config,
    Duration,
    Push,
    Queue,
    Secret,
    ServerTLS,
    described,
    listen_address,
    seconds,
    without_type,
)


class Sample(Config):
    wait: Duration = 0.0
    """A wait."""
    size: ByteSize = 0
    """A size."""
    key: Secret = Secret("")
    """A secret."""
    flag: bool = False
    """A flag."""


@pytest.mark.parametrize(("text", "value"), [
    ("300ms", 0.3), ("1.5s", 1.5), ("1h30m", 5400), ("2us", 2e-6), ("2µs", 2e-6), ("7d", 604800), ("0", 0), (0, 0), ("1h0m2.5s", 3602.5),
])  # fmt: skip
def test_durations_read_as_go_reads_them(text, value):
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "s", "5", "5 s", "-1s", "1x", "1s2", 5, 1.5, True, None, [], "1,5s"])
def test_what_is_no_duration_is_refused_with_the_fix(text):
    with pytest.raises(ValueError, match=r"5s|5ms|1\.5s"):
        seconds(text)


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h"]))
def test_any_number_with_a_unit_is_a_duration(number, unit):
    assert seconds(f"{number}{unit}") >= 0


def test_settings_print_durations_with_their_unit():
    shown = Sample.model_validate({"wait": "1500ms"}).model_dump(mode="json")
    assert shown["wait"] == "1.5s"
    assert Sample.model_validate({"wait": "20ms"}).model_dump(mode="json")["wait"] == "20ms"


def test_sizes_have_units():
    assert Sample.model_validate({"size": "64MiB"}).size == 64 << 20
    assert Sample.model_validate({"size": 5}).size == 5
    with pytest.raises(ValidationError):
        Sample.model_validate({"size": "5MB"})


def test_a_secret_is_never_printed():
    """R-306 (partly)."""
    sample = Sample.model_validate({"key": "hunter2"})
    assert "hunter2" not in repr(sample) + str(sample) + sample.model_dump_json()
    assert sample.key.get_secret_value() == "hunter2"


@pytest.mark.parametrize("wrong", [{"flag": "yes"}, {"flag": 1}, {"unknown": 1}, {"wait": 5}])
def test_no_type_is_read_as_another_one(wrong):
    with pytest.raises(ValidationError):
        Sample.model_validate(wrong)


def test_the_defaults_of_queue_and_retry_are_as_documented():
    push = Push()
    assert (push.sending_queue.queue_size, push.sending_queue.num_consumers, push.timeout) == (1000, 10, 5.0)
    assert (
        push.retry_on_failure.initial_interval,
        push.retry_on_failure.max_interval,
        push.retry_on_failure.max_elapsed_time,
    ) == (1, 5, 0)
    with pytest.raises(ValidationError):
        Queue.model_validate({"num_consumers": 0})


def test_without_type_names_the_option_and_the_reason():
    assert without_type({"a": 1}, "b c", "later") == {"a": 1}
    with pytest.raises(ValueError, match="auth is not supported: needs an extension"):
        without_type({"auth": {}}, "auth middlewares", "needs an extension")


def test_tls_needs_certificate_and_key():
    with pytest.raises(ValidationError, match="cert_file and key_file"):
        ServerTLS.model_validate({"cert_file": "a.pem"})


def test_tls_reads_files_or_text(tmp_path):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", tmp_path / "k", "-out", tmp_path / "c"],
        check=True, capture_output=True,
    )  # fmt: skip
    cert, key = str(tmp_path / "c"), str(tmp_path / "k")
    chain, private = ServerTLS.model_validate({"cert_file": cert, "key_file": key}).certificate()
    assert ServerTLS.model_validate({"cert_pem": chain.decode(), "key_pem": private.decode()}).certificate() == (chain, private)
    server = ServerTLS.model_validate(
        {"cert_file": cert, "key_file": key, "client_ca_file": cert, "max_version": "1.2"}
    ).context()
    assert (server.verify_mode, server.maximum_version) == (ssl.CERT_REQUIRED, ssl.TLSVersion.TLSv1_2)
    server = ServerTLS.model_validate({"cert_file": cert, "key_file": key, "min_version": "1.3", "max_version": "1.3"}).context()
    assert (server.verify_mode, server.minimum_version) == (ssl.CERT_NONE, ssl.TLSVersion.TLSv1_3)
    context = ClientTLS.model_validate({"ca_file": cert, "cert_file": cert, "key_file": key, "min_version": "1.3"}).context()
    assert context.check_hostname
    assert not ClientTLS.model_validate({"insecure_skip_verify": True}).context().check_hostname


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("localhost:4317", ("127.0.0.1", 4317)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        (":8888", (None, 8888)),
        ("[::1]:0", ("::1", 0)),
        ("api.local:80", ("api.local", 80)),
    ],
)
def test_a_listen_address_is_host_and_port(endpoint, expected):
    assert listen_address(endpoint) == expected


@pytest.mark.parametrize("endpoint", ["", "localhost", "4317", "localhost:", "localhost:x", "localhost:70000", "::1:4317", "a:٣"])
def test_what_is_no_listen_address_is_refused_with_the_fix(endpoint):
    with pytest.raises(ValueError, match=r"write localhost:4317"):
        listen_address(endpoint)


def test_the_docstring_under_a_field_is_its_description_in_the_schema() -> None:
    class Inner(Config):
        size: int = Field(1, alias="from")
        """How much."""

    class Outer(Inner):
        inner: Inner | None = None
        """Another one,
        of the same kind."""

    assert described(Outer) == {"size": "How much.", "inner": "Another one,\nof the same kind."}
    assert Outer.model_json_schema()["properties"]["from"]["description"] == "How much."
