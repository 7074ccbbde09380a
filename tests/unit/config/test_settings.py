import inspect
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from support.paths import ROOT
from tether.broker import TetherBroker
from tether.config import loading as config_loading
from tether.config import settings as config
from tether.config.loading import load_settings
from tether.config.settings import BrokerSettings, RedisSettings, Settings
from tether.errors import ConfigError
from tether.telemetry import logs

REFERENCE = ROOT / "docs" / "reference" / "configuration.md"


def written(folder: Path, text: str | bytes, name: str = "tether.toml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(**arguments) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(**{"environ": {}, **arguments})
    return str(caught.value)


def test_without_file_and_environment_all_is_default(here):
    settings = load_settings(environ={})
    assert settings == Settings()
    assert {row.source for row in settings.describe()} == {"default"}


def test_ended_jobs_are_kept_for_thirty_days_unless_they_are_to_be_kept_for_ever(here):
    day_ms = 24 * 60 * 60 * 1000
    assert load_settings(environ={}).jobs.retention == 30 * day_ms
    assert load_settings(environ={"TETHER_JOBS__RETENTION": "none"}).jobs.retention is None


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("30d", 2_592_000_000), ("1m30s", 90_000), (" 500ms ", 500), ("1.5H", 5_400_000), ("7000", 7_000)],
)
def test_durations_are_written_with_their_unit_or_in_milliseconds(here, text, milliseconds):
    assert load_settings(environ={"TETHER_JOBS__RETENTION": text}).jobs.retention == milliseconds
    value = text if text.isdigit() else f'"{text}"'
    path = written(here, f"[jobs]\nretention = {value}\n")
    assert load_settings(environ={}, file=path).jobs.retention == milliseconds


@pytest.mark.parametrize("text", ["1.5ms", "5x", "25h", "1d1d", "0s", "ms", "11y"])
def test_what_is_no_duration_of_a_setting_is_refused_with_how_it_is_written(here, text):
    assert "is not a duration such as 500ms or 15m, or an integer" in refusal(
        environ={"TETHER_JOBS__RESULT_TTL": text}
    )


def test_how_a_variable_holds_a_list_is_said_where_it_is_written_otherwise(here):
    said = refusal(environ={"TETHER_PRESENCE__ADAPTERS": '["swarm", "redis"]'})
    assert "separated by commas, without brackets or quotes" in said


def test_the_broker_s_defaults_are_the_broker_s_own():
    parameters = inspect.signature(TetherBroker).parameters
    for key, default in BrokerSettings():
        assert parameters[key].default == default, key


def test_the_forms_and_levels_of_logs_are_those_that_logs_can_have():
    assert get_args(config.LogSettings.model_fields["form"].annotation) == logs.LOG_FORMS
    assert get_args(config.LogSettings.model_fields["level"].annotation) == logs.LOG_LEVELS


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(here):
    path = written(here, '[redis]\nnamespace = "one"\nhash_tag = false\n[worker]\nthreads = 3\n')
    settings = load_settings(environ={"TETHER_REDIS__NAMESPACE": "two"}, file=path)
    assert (settings.redis.namespace, settings.redis.hash_tag) == ("two", False)
    assert (settings.worker.threads, settings.worker.processes) == (3, 1)
    assert settings.source("redis.namespace") == "environment TETHER_REDIS__NAMESPACE"
    assert settings.source("worker.threads") == str(path)
    assert settings.source("worker.processes") == "default"


def test_a_value_given_in_a_program_says_so():
    assert Settings(redis=RedisSettings(namespace="x")).source("redis.namespace") == "program"


def test_the_explicit_file_wins_over_tether_config_and_that_over_the_working_directory(here):
    written(here, "[worker]\nthreads = 1\n")
    named = written(here, "[worker]\nthreads = 2\n", "named.toml")
    explicit = written(here, "[worker]\nthreads = 3\n", "explicit.toml")
    environ = {"TETHER_CONFIG": str(named)}
    assert load_settings(environ={}).worker.threads == 1
    assert load_settings(environ={"TETHER_CONFIG": ""}).worker.threads == 1
    assert load_settings(environ=environ).worker.threads == 2
    assert load_settings(environ=environ, file=explicit).worker.threads == 3


def test_names_kept_for_other_parts_are_no_errors(here):
    environ = {"TETHER_URL": "http://x", "TETHER_API_KEY": "k", "TETHER_DIR": "/x", "PATH": "/bin"}
    assert load_settings(environ=environ) == Settings()


def test_variables_that_an_orchestrator_puts_beside_a_service_named_tether_are_no_errors(here):
    environ = {
        "TETHER_SERVICE_HOST": "10.0.0.7",
        "TETHER_SERVICE_PORT": "8470",
        "TETHER_GATEWAY_SERVICE_PORT_HTTP": "8470",
        "TETHER_PORT": "tcp://10.0.0.7:8470",
        "TETHER_GATEWAY_PORT_8470_TCP": "tcp://10.0.0.7:8470",
        "TETHER_GATEWAY_PORT_8470_TCP_ADDR": "10.0.0.7",
    }
    assert load_settings(environ=environ) == Settings()


def test_a_port_with_one_underscore_too_few_is_an_error():
    assert "TETHER_GATEWAY_PORT" in refusal(environ={"TETHER_GATEWAY_PORT": "8470"})


def test_an_empty_variable_counts_as_not_set(here):
    assert load_settings(environ={"TETHER_WORKER__THREADS": ""}).worker.threads == 8


def test_a_lifetime_can_be_taken_back_by_the_environment(here):
    path = written(here, "[broker]\ndead_message_ttl = 5\n")
    assert load_settings(environ={}, file=path).broker.dead_message_ttl == 5
    taken_back = load_settings(environ={"TETHER_BROKER__DEAD_MESSAGE_TTL": "none"}, file=path)
    assert taken_back.broker.dead_message_ttl is None


def test_an_unknown_variable_is_refused_with_the_name_that_was_meant(here):
    message = refusal(environ={"TETHER_REDIS_URL": "redis://:hunter2@h"})
    assert "TETHER_REDIS_URL" in message
    assert "did you mean TETHER_REDIS__URL?" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("text", "place", "meant"),
    [
        ('[redis]\nnamespce = "a"\n', "redis.namespce (tether.toml:2)", "did you mean redis.namespace?"),
        ("[wroker]\nthreads = 1\n", "[wroker] (tether.toml:1)", "did you mean worker?"),
        ('[redis]\nlevel = "info"\n', "redis.level (tether.toml:2)", "did you mean logs.level?"),
        ('\nurl = "x"\n', "url (tether.toml:2)", "did you mean redis.url?"),
    ],
)
def test_an_unknown_key_of_the_file_is_refused_with_its_line_and_the_name_that_was_meant(
    here, text, place, meant
):
    written(here, text)
    message = refusal()
    assert place in message
    assert meant in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[broker]\nheartbeat_interval = "750"\n',
            "broker.heartbeat_interval (tether.toml:2): '750' is not a",
        ),
        (
            "[broker]\nstall_timeout = 1.5\n",
            "broker.stall_timeout (tether.toml:2): 1.5 is not a duration",
        ),
        ("[worker]\nthreads = true\n", "worker.threads (tether.toml:2): True is not an integer"),
        ("[worker]\nthreads = 0\n", "worker.threads (tether.toml:2): 0 is not an integer from 1"),
        ("[redis]\nhash_tag = 1\n", "redis.hash_tag (tether.toml:2): 1 is not true or false"),
        ('[logs]\nform = "xml"\n', "logs.form (tether.toml:2): 'xml' is not human or json"),
        ("[logs]\nlevel = {a = 1}\n", "logs.level (tether.toml:2): a table is not debug"),
        ("[logs]\nlevel = [1]\n", "logs.level (tether.toml:2): an array is not debug"),
        ("redis = 5\n", "redis (tether.toml:1): must be a table, written as [redis]"),
        ('[redis]\nnamespace = "a:b"\n', "redis.namespace (tether.toml:2): 'a:b' is not a name"),
        ("[redis]\nurl = 5\n", "redis.url (tether.toml:2): the value (not shown"),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_its_line_itself_and_what_is_expected(here, text, said):
    written(here, text)
    assert said in refusal()


def test_all_that_is_wrong_is_told_at_once(here):
    written(here, "[redis]\nnamespce = 1\n[worker]\nthreads = 0\n")
    message = refusal(environ={"TETHER_LOGS__LEVEL": "loud", "TETHER_BROKER__STALL_TIMEOUT": "5"})
    for part in (
        "4 problems",
        "redis.namespce",
        "worker.threads",
        "environment TETHER_LOGS__LEVEL",
        "broker.stall_timeout = 5 (environment TETHER_BROKER__STALL_TIMEOUT) must be at least",
    ):
        assert part in message


def test_timings_that_cannot_go_together_are_refused_with_both_sources(here):
    path = written(here, "[broker]\nheartbeat_interval = 2000\n")
    message = refusal(file=path)
    assert "broker.heartbeat_timeout = 3000 (default) must be at least 2 times" in message
    assert f"broker.heartbeat_interval = 2000 ({path})" in message


def test_timings_on_the_edge_of_what_goes_together_are_taken(here):
    environ = {
        "TETHER_BROKER__HEARTBEAT_INTERVAL": "2000",
        "TETHER_BROKER__HEARTBEAT_TIMEOUT": "4000",
        "TETHER_BROKER__STALL_TIMEOUT": "4000",
    }
    assert load_settings(environ=environ).broker.stall_timeout == 4000


def test_settings_made_in_a_program_are_checked_alike():
    with pytest.raises(ValidationError, match="heartbeat_timeout must be at least"):
        BrokerSettings(heartbeat_interval=2000)


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError):
        Settings().redis.url = "redis://elsewhere"  # type: ignore[misc]


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h/",
        "rediss://user:hunter2@h:6380/3?ssl_cert_reqs=none",
        "redis://:p%40ss@[::1]:6379/0",
        "unix:///run/redis.sock?db=1",
        "unix://user:hunter2@/run/redis.sock",
    ],
)
def test_an_address_of_redis_is_taken_and_shown_without_its_password(here, url):
    settings = load_settings(environ={"TETHER_REDIS__URL": url})
    assert settings.redis.url == url
    shown = f"{settings} {settings!r} {settings.redis} {settings.redis!r} {settings.describe()}"
    assert "hunter2" not in shown
    assert "p%40ss" not in shown


@pytest.mark.parametrize(
    "url",
    [
        "http://:hunter2@h",
        "redis://:hun/ter2@h",
        "redis://:12/hunter2@h",
        "redis://u:hunter2@h:port/0",
        "redis://u:hunter2@[h/0",
        "redis://h/zero?password=hunter2",
        "redis://h:0/hunter2",
        "redis://:hunter#2@h",
        "redis:///hunter2",
        "hunter2",
        "redis://h /hunter2",
        "unix://",
    ],
)
def test_what_is_no_address_of_redis_is_refused_without_being_shown(here, url):
    message = refusal(environ={"TETHER_REDIS__URL": url})
    assert "redis.url (environment TETHER_REDIS__URL)" in message
    assert "hunter2" not in message
    assert "ter2" not in message


def test_a_password_does_not_stand_in_the_error_of_settings_made_in_a_program():
    with pytest.raises(ValidationError) as caught:
        RedisSettings(url="http://:hunter2@h")
    assert "hunter2" not in str(caught.value)


def test_a_password_in_the_wrong_key_is_not_shown(here):
    assert "hunter2" not in refusal(environ={"TETHER_REDIS__NAMESPACE": "redis://:hunter2@h"})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[redis\n", "is not valid TOML"),
        (b"a = 1\na = 2\n", "is not valid TOML"),
        (b"a = " + b"[" * 100_000, "is not valid TOML"),
        (b"a = " + b"9" * 5_000, "is not valid TOML"),
        (b"[redis]\nurl = '\xff'\n", "is not UTF-8 text (line 2)"),
        (b"#" * (config_loading.MAX_FILE_BYTES + 1), "is larger than"),
    ],
)
def test_a_file_that_is_no_settings_file_is_refused_with_its_path(tmp_path, content, said):
    path = written(tmp_path, content)
    message = refusal(file=path)
    assert str(path) in message
    assert said in message


def test_a_file_that_is_not_there_is_refused_when_it_was_named(tmp_path):
    path = tmp_path / "none.toml"
    assert f"the settings file {path} does not exist" in refusal(file=path)
    assert f"the settings file {path} does not exist" in refusal(environ={"TETHER_CONFIG": str(path)})


def test_a_directory_in_place_of_the_file_is_refused_with_its_path(here):
    (here / "tether.toml").mkdir()
    assert "tether.toml cannot be read: Is a directory" in refusal()


def test_a_file_that_the_system_does_not_open_is_refused_with_its_path(tmp_path):
    path = tmp_path / "loop.toml"
    path.symlink_to(path)
    assert f"{path} cannot be read: Too many levels of symbolic links" in refusal(file=path)


def test_a_path_that_no_file_can_have_is_refused(tmp_path):
    assert "cannot be read" in refusal(environ={"TETHER_CONFIG": "\0"})
    assert "cannot be read" in refusal(environ={"TETHER_CONFIG": "x" * 10_000})


def test_a_byte_order_mark_and_other_line_ends_do_no_harm(tmp_path):
    path = written(tmp_path, b"\xef\xbb\xbf[worker]\r\nthreads = 3\r\n")
    assert load_settings(environ={}, file=path).worker.threads == 3


def test_asking_for_the_source_of_an_unknown_key_is_refused():
    with pytest.raises(ConfigError, match=r"did you mean redis\.url\?"):
        Settings().source("redis.ulr")


def test_the_reference_lists_every_key_with_its_variable_and_default():
    rows = re.findall(r"^\| `([a-z_.]+)` \| `(TETHER_[A-Z_]+)` \| `([^`]*)` \|", REFERENCE.read_text(), re.M)
    told = {key: (variable, default) for key, variable, default in rows}
    assert len(told) == len(rows)
    assert told == {
        row.key: (f"TETHER_{row.key.upper().replace('.', '__')}", row.value) for row in Settings().describe()
    }


def test_the_reference_names_every_variable_kept_for_other_parts():
    text = REFERENCE.read_text()
    assert all(
        f"`{name}`" in text for name in ("TETHER_URL", "TETHER_API_KEY", "TETHER_DIR", "TETHER_CONFIG")
    )


def test_every_setting_of_redis_and_the_broker_reaches_the_broker(here):
    settings = load_settings(
        environ={
            "TETHER_REDIS__URL": "redis://10.0.0.9:7000/3",
            "TETHER_REDIS__NAMESPACE": "other",
            "TETHER_REDIS__HASH_TAG": "false",
            "TETHER_BROKER__HEARTBEAT_INTERVAL": "100",
            "TETHER_BROKER__HEARTBEAT_TIMEOUT": "400",
            "TETHER_BROKER__STALL_TIMEOUT": "900",
            "TETHER_BROKER__DEAD_MESSAGE_TTL": "5000",
        }
    )
    broker = TetherBroker.from_settings(settings)
    address = broker.client.connection_pool.connection_kwargs
    assert (address["host"], address["port"], address["db"]) == ("10.0.0.9", 7000, 3)
    assert broker.keys.prefix == "other"
    assert dict(settings.broker) == {key: getattr(broker, key) for key in BrokerSettings.model_fields}


def test_a_path_can_come_from_the_environment():
    settings = load_settings(environ={"TETHER_PRESENCE__IDENTITY_DIR": "/some/where"})
    assert settings.presence.identity_dir == Path("/some/where")
    with pytest.raises(ConfigError, match="identity_dir"):
        load_settings(environ={"TETHER_PRESENCE__IDENTITY_DIR": "a\0b"})
