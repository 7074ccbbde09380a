import pytest

from tether.config.models import ModelSettings
from tether.local.model_loads import (
    LATER_LOOK_SECONDS,
    LOOK_SECONDS,
    TellLoads,
    first_submit,
    loaded_at_start,
)
from tether.loops import IDLE

AGAIN = "A job that needs it lets it be tried again."
WORKERS = {"data": [{"worker_id": "ab" * 8, "name": "worker-1"}]}


@pytest.mark.parametrize(
    ("models", "loaded"),
    [
        ([{"name": "one"}], ("one@1",)),
        ([{"name": "one"}, {"name": "two"}], ()),
        ([{"name": "one", "pinned": True}, {"name": "two"}], ("one@1",)),
        ([], ()),
    ],
)
def test_a_worker_loads_by_itself_what_is_pinned_and_an_only_model(models, loaded):
    assert loaded_at_start([ModelSettings(source="demo", **model) for model in models]) == loaded


@pytest.mark.parametrize(
    ("names", "command"),
    [
        (["one"], 'tether submit "Once upon a time"'),
        (["two", "one"], 'tether submit --model two "Once upon a time"'),
    ],
)
def test_the_first_command_names_a_model_where_there_are_several(names, command):
    assert first_submit([ModelSettings(source="demo", name=name) for name in names]) == command


class Telling:
    """What a gateway answers, and what is said of it."""

    def __init__(self, *names):
        self.loaded = set()
        self.failing = {}
        self.error = None
        self.said = []
        self.names = names
        self.step = TellLoads(
            names,
            self._ask,
            tell_accepting=lambda loading: self.said.append(f"loading {' '.join(loading)}"),
            tell_ready=lambda: self.said.append("ready"),
            tell_failure=self.said.append,
        )

    def _ask(self, path):
        if self.error is not None:
            raise self.error
        if path == "/v1/models":
            models = [(name, *name.split("@")) for name in self.names]
            return {
                "data": [
                    {"id": model, "version": version, "is_loaded": name in self.loaded}
                    for name, model, version in models
                ]
            }
        assert path == "/v1/operator/workers"
        return {**WORKERS, "failing": self.failing}

    def said_in(self, seconds):
        """What one step says, which wants the next one after so many seconds."""
        self.said.clear()
        assert self.step() == seconds
        return list(self.said)


def test_it_is_ready_once_all_are_loaded_and_says_what_is_loaded_until_then():
    telling = Telling("a@1", "b@1")
    telling.loaded = {"a@1"}
    assert telling.said_in(LOOK_SECONDS) == ["loading b@1"]
    assert telling.said_in(LOOK_SECONDS) == []
    telling.loaded = {"a@1", "b@1"}
    assert telling.said_in(IDLE) == ["ready"]
    assert telling.said_in(IDLE) == []


def test_where_nothing_is_loaded_at_the_start_it_is_ready_at_once():
    assert Telling().said_in(IDLE) == ["ready"]


def test_why_a_model_cannot_be_loaded_is_said_once_and_that_it_is_loaded_after_all():
    telling = Telling("a@1")
    telling.failing = {"ab" * 8: {"a@1": "no such folder.", "other": "is not waited for"}}
    said = f"worker-1 cannot load a@1: no such folder. {AGAIN}"
    assert telling.said_in(LATER_LOOK_SECONDS) == ["loading a@1", said]
    assert telling.said_in(LATER_LOOK_SECONDS) == []
    telling.failing["ab" * 8]["a@1"] = "too large"
    assert telling.said_in(LATER_LOOK_SECONDS) == [f"worker-1 cannot load a@1: too large. {AGAIN}"]
    telling.failing, telling.loaded = {}, {"a@1"}
    assert telling.said_in(IDLE) == ["ready"]


@pytest.mark.parametrize("error", [OSError("refused"), ValueError("no JSON")])
def test_a_gateway_that_does_not_answer_is_asked_again(error):
    telling = Telling("a@1")
    telling.error = error
    assert telling.said_in(LOOK_SECONDS) == ["loading a@1"]
    telling.error, telling.loaded = None, {"a@1"}
    assert telling.said_in(IDLE) == ["ready"]
