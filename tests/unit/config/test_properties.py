"""Whatever stands in the environment or the file: settings, or the one error that says what is wrong."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tether.broker.keys import Keys
from tether.config.loading import load_settings
from tether.config.settings import Settings
from tether.errors import ConfigError, InvalidName

KEYS = [row.key for row in Settings().describe()]
VARIABLES = [f"TETHER_{key.upper().replace('.', '__')}" for key in KEYS]
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
names = st.sampled_from([*VARIABLES, "TETHER_MODELS", "TETHER_CONFIG", "TETHER_URL"]) | st.text().map(
    lambda t: f"TETHER_{t}"
)
texts = (
    st.text() | st.integers().map(str) | st.sampled_from(["true", "none", "info", "redis://h", "redis://[h"])
)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5)


def load_or_refuse(**arguments) -> Settings | None:
    try:
        loaded = load_settings(**arguments)
    except ConfigError:
        return None
    assert len(loaded.describe()) == len(KEYS) + len(loaded.models)
    return loaded


@quick
@given(environ=st.dictionaries(names, texts, max_size=6))
def test_any_environment_gives_settings_or_a_config_error(environ):
    load_or_refuse(environ=environ)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "tether.toml"


@quick
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
def test_any_bytes_as_file_give_settings_or_a_config_error(path, content):
    path.write_bytes(content)
    load_or_refuse(environ={}, file=path)


def as_toml(value: object) -> str:
    # What JSON writes is TOML, but for null and for the escaping of DEL.
    return json.dumps(value).replace("\x7f", "\\u007f").replace("null", '"null"')


@quick
@given(
    entries=st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=9).map(json.dumps), values, max_size=8)
)
def test_any_values_in_the_file_give_settings_or_a_config_error(path, entries):
    path.write_text(
        "".join(f"{key} = {as_toml(value)}\n" for key, value in entries.items()), errors="replace"
    )
    load_or_refuse(environ={}, file=path)


@quick
@given(threads=st.integers(1, 4096), interval=st.integers(1, 1500), level=st.sampled_from(["INFO", "debug"]))
def test_what_is_valid_is_loaded_alike_from_file_and_environment(path, threads, interval, level):
    path.write_text(
        f'[worker]\nthreads = {threads}\n[logs]\nlevel = "{level}"\n[broker]\n'
        f"heartbeat_interval = {interval}\n"
    )
    from_file = load_settings(environ={}, file=path)
    path.write_text("")
    from_environment = load_settings(
        environ={
            "TETHER_WORKER__THREADS": str(threads),
            "TETHER_BROKER__HEARTBEAT_INTERVAL": str(interval),
            "TETHER_LOGS__LEVEL": level,
        },
        file=path,
    )
    assert from_file.model_dump() == from_environment.model_dump()
    assert from_file.worker.threads == threads


@quick
@given(namespace=st.from_regex(r"[a-zA-Z0-9_.-]{1,70}\n?", fullmatch=True) | st.text(min_size=1, max_size=70))
def test_a_namespace_is_taken_exactly_where_the_broker_takes_it(path, namespace):
    path.write_text("")
    try:
        Keys(namespace)
        fits = True
    except InvalidName:
        fits = False
    loaded = load_or_refuse(environ={"TETHER_REDIS__NAMESPACE": namespace}, file=path)
    assert (loaded is not None) == fits
