import json
import re
import subprocess
import sys
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from support.paths import ROOT
from tether.config.engine_options import option_schema
from tether.config.loading import load_settings
from tether.config.settings import ModelSettings, Settings, ShownSetting
from tether.errors import ConfigError

ENGINES = get_args(ModelSettings.model_fields["engine"].annotation)
REFERENCE = ROOT / "docs" / "reference" / "configuration.md"
KEY = "ab" * 32


def load(here, text, **environ):
    (here / "tether.toml").write_text(text)
    return load_settings(environ=environ)


def refusal(here, text, **environ):
    with pytest.raises(ConfigError) as caught:
        load(here, text, **environ)
    return str(caught.value)


TWO = """
[[models]]
name = "tiny"
source = "/srv/tiny"
adapters = ["a=/srv/a", "b=hf:team/b"]

[[models]]
name = "counter"
engine = "null"
[models.options]
tokens_per_second = 50.0
"""


def test_models_are_read_from_the_file_in_order(here):
    loaded = load(here, TWO)
    assert [model.name for model in loaded.models] == ["tiny", "counter"]
    assert loaded.models[0].adapter_names == ("a", "b")
    assert loaded.models[1].options == {"tokens_per_second": 50.0}
    assert loaded.source("models") == loaded.source("models[1]") == "tether.toml"


def test_the_variable_replaces_the_models_of_the_file(here):
    loaded = load(here, TWO, TETHER_MODELS=json.dumps([{"name": "x", "engine": "null"}]))
    assert [model.name for model in loaded.models] == ["x"]
    assert loaded.source("models[0]") == "environment TETHER_MODELS"


def test_each_model_is_shown_in_one_line_without_what_may_be_secret():
    model = ModelSettings(
        name="m", source="http://u:hunter2@h/v1", quantize="int8", options={"dtype": "bfloat16"}
    )
    loaded = Settings(models=(model,))
    assert loaded.describe()[-1] == ShownSetting(
        "models[0]", "m@1 source=http://u:***@h/v1 quantize=int8 options=(dtype=***)", "program"
    )
    for text in (repr(loaded), str(loaded), repr(model)):
        assert "hunter2" not in text
        assert "bfloat16" not in text


OPTIONS = '[[models]]\nname = "x"\nsource = "/x"\n[models.options]\n'
NULL_OPTIONS = OPTIONS.replace("source", 'engine = "null"\nsource')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            OPTIONS + 'dtype = "int4"\n',
            "models[0].options.dtype (tether.toml:5): is not one of auto, float32, bfloat16, float16",
        ),
        (
            OPTIONS + "device = true\n",
            "models[0].options.device (tether.toml:5): is not one of auto, cpu, cuda",
        ),
        (
            OPTIONS + "seed = 1\n",
            "models[0].options (tether.toml:4): the transformers engine has no option 'seed'; "
            "available: dtype, device",
        ),
        (
            NULL_OPTIONS + "output_tokens = 0\n",
            "models[0].options.output_tokens (tether.toml:6): is not an integer from 1 to 1000000",
        ),
        (
            NULL_OPTIONS + "output_tokens = true\n",
            "models[0].options.output_tokens (tether.toml:6): is not a",
        ),
        (NULL_OPTIONS + "output_tokens = 2.5\n", "models[0].options.output_tokens (tether.toml:6): is not"),
        (
            NULL_OPTIONS + "tokens_per_second = nan\n",
            "models[0].options.tokens_per_second (tether.toml:6): is not a number from 0",
        ),
        (
            NULL_OPTIONS + "tokens_per_second = 1000001\n",
            "models[0].options.tokens_per_second (tether.toml:6): is not a number from 0",
        ),
        (
            NULL_OPTIONS + "load_time = 600001\n",
            "models[0].options.load_time (tether.toml:6): is not a duration such as 500ms or 3s",
        ),
        (
            TWO.replace("adapters", "adaptres"),
            "models[0].adaptres (tether.toml:5): unknown key; did you mean adapters?",
        ),
        (TWO.replace('"null"', '"nil"'), "models[1].engine (tether.toml:9): 'nil' is not transformers"),
        (
            TWO.replace('"null"', '"openai"'),
            "models[1].engine (tether.toml:9): 'openai' is not transformers or null (an engine for "
            "OpenAI-compatible servers is not built yet)",
        ),
        (
            TWO.replace("tokens_per_second", "token_per_second"),
            "models[1].options (tether.toml:10): the null engine has no option 'token_per_second'; "
            "did you mean tokens_per_second?",
        ),
        (
            TWO.replace("50.0", "-1"),
            "models[1].options.tokens_per_second (tether.toml:11): is not a number from 0",
        ),
        (TWO.replace('source = "/srv/tiny"', ""), "models[0].source (tether.toml:2): is missing"),
        (TWO.replace('name = "tiny"', ""), "models[0] (tether.toml:2): the model has no name"),
        (
            TWO.replace('"counter"', '"tiny"'),
            "models[1] (tether.toml:7): name 'tiny' with version '1' already exists",
        ),
        (
            '[models]\nname = "x"\n',
            "models (tether.toml:1): must be an array of tables, written as [[models]]",
        ),
        ("models = [1]\n", "models (tether.toml:1): must be an array of tables"),
        ('[[models]]\nname = "x"\nsource = 5\n', "models[0].source (tether.toml:3): the value (not shown"),
        ('[[model]]\nname = "x"\n', "model (tether.toml:1): unknown key"),
    ],
)
def test_what_is_wrong_with_a_model_is_told_with_its_line(here, text, said):
    assert said in refusal(here, text)


def test_a_variable_that_holds_no_json_is_refused_without_being_shown(here):
    message = refusal(here, "", TETHER_MODELS="hunter2{")
    assert "models (environment TETHER_MODELS): it is not JSON" in message
    assert "hunter2" not in message


def test_models_made_in_a_program_are_checked_alike():
    with pytest.raises(ValidationError, match="say where the model is"):
        ModelSettings(name="x")
    twice = ModelSettings(name="x", engine="null")
    with pytest.raises(ValidationError, match=r"models\[1\] has the name and version of models\[0\]"):
        Settings(models=(twice, twice))


def test_asking_for_the_source_of_a_model_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="unknown setting"):
        Settings().source("models[0]")


def test_the_reference_lists_every_key_of_a_model():
    text = REFERENCE.read_text().partition("## Models")[2].partition("## Invalid settings")[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", text, re.M)) == set(ModelSettings.model_fields)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_reference_names_every_option_of_an_engine(engine):
    text = REFERENCE.read_text().partition("## Models")[2].partition("## Invalid settings")[0]
    assert set(option_schema(engine).model_fields) <= set(re.findall(r"`([a-z_]+)`", text))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_option_of_an_engine_may_be_left_out(engine):
    assert not any(info.is_required() for info in option_schema(engine).model_fields.values())


def test_reading_the_options_of_an_engine_loads_nothing_heavy():
    program = """
import sys
from tether.config.settings import ModelSettings
ModelSettings(name="m", source="/m", engine="transformers", options={"device": "cpu"})
ModelSettings(name="n", engine="null", options={"output_tokens": 5})
print(sorted({"torch", "transformers", "tokenizers", "dramatiq"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_trusted_keys_are_an_array_in_the_file_and_separated_by_commas_in_the_variable(here):
    text = f'[presence]\ntrusted_keys = ["{KEY}"]\n'
    assert load(here, text).presence.trusted_keys == (KEY,)
    other = "cd" * 32
    assert load(here, text, TETHER_PRESENCE__TRUSTED_KEYS=f"{KEY}, {other}").presence.trusted_keys == (
        KEY,
        other,
    )
    assert "presence.trusted_keys" in refusal(here, "", TETHER_PRESENCE__TRUSTED_KEYS="abc")


@pytest.mark.parametrize(
    "url", ["sqlite:///tether.db", "sqlite:////srv/my data/t.db", "postgresql://u:hunter2@h:5432/tether?a=b"]
)
def test_an_address_of_a_database_is_taken_and_shown_without_its_password(here, url):
    loaded = load(here, "", TETHER_DATABASE__URL=url)
    assert loaded.database.url == url
    assert "hunter2" not in f"{loaded!r} {loaded.describe()}"


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "mysql://u:hunter2@h/d", "postgresql://u:hunter2@h", "hunter2"]
)
def test_what_is_no_address_of_a_database_is_refused_without_being_shown(here, url):
    message = refusal(here, "", TETHER_DATABASE__URL=url)
    assert "database.url (environment TETHER_DATABASE__URL)" in message
    assert "hunter2" not in message


def test_times_of_every_section_that_cannot_go_together_are_refused(here):
    message = refusal(here, "[presence]\nexpiry = 9999\n[jobs]\nretry_cap = 999\n")
    assert "presence.expiry = 9999 (tether.toml) must be at least 2 times presence.interval" in message
    assert "jobs.retry_cap = 999 (tether.toml) must be at least jobs.retry_base = 1000 (default)" in message


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
names = st.sampled_from(list(ModelSettings.model_fields)) | st.text(max_size=5)
models = st.lists(
    st.dictionaries(names, values | st.sampled_from(["null", "x"]), max_size=6) | values, max_size=3
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=models | values)
def test_any_json_as_models_gives_settings_or_a_config_error(here, items):
    try:
        loaded = load(here, "", TETHER_MODELS=json.dumps(items))
    except ConfigError:
        return
    assert len(loaded.models) == len(items)
