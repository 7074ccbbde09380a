"""`tether submit`, over a fake."""

import json

import pytest

from support.command_line import CommandLine, ToldBackend, delta, failed, finished
from tether.errors import GatewayUnavailable, KeyConflict
from tether.jobs import JobState, Priority
from tether.streams.events import StreamEvent
from tether.testing import FakeBackend, FakeModel
from tether_cli.job_progress import WaitLimit, told_after


def breaks(prompt):
    raise ValueError("it broke")


def test_into_a_pipe_goes_the_text_alone_to_the_byte():
    result = CommandLine().run("submit", "süß \x1b[1m ☃")
    assert result.exit_code == 0
    assert result.stdout_bytes == "süß \x1b[1m ☃".encode()
    assert result.stderr == ""


def test_a_prompt_comes_from_standard_input():
    line = CommandLine()
    assert line.run("submit", stdin="hello\nworld\n").stdout == "hello\nworld\n"


def test_a_prompt_that_is_empty_is_refused_before_anything_is_opened():
    line = CommandLine()
    result = line.run("submit", stdin="")
    assert (result.exit_code, line.opened) == (2, [])
    assert result.stderr == "tether: standard input is empty: a prompt needs at least one byte\n"


def test_every_option_reaches_the_job():
    fake = FakeBackend({"m": FakeModel(adapters=("poet",)), "n": FakeModel()}, autorun=False)
    options = "--model m --priority batch --delay 30s --time-limit 1h --expires-in 10m --label a=b=c -l d="
    options += " --max-tokens 9"
    options += " --max-attempts 3 --retry-base 500ms --retry-on engine_failed --retry-on model_damaged"
    options += " --temperature 0.5 --top-p 0.9 --top-k 4 --seed 7 --stop x --stop y --adapter poet"
    options += " --region eu --gpu-class h100 --min-vram 40GB --prefer region --prefer min_vram"
    options += " --correlation-id c --idempotency-key t --no-wait"
    job_id = CommandLine(fake).run("submit", "hi", *options.split()).stdout.strip()
    request = fake.request(job_id)
    assert (request.model, request.prompt, request.priority) == ("m", "hi", Priority.BATCH)
    assert (request.delay_ms, request.time_limit_ms, request.expires_in_ms) == (30_000, 3_600_000, 600_000)
    assert (request.max_attempts, request.retry_base_ms) == (3, 500)
    assert request.retry_on == ("engine_failed", "model_damaged")
    assert request.labels == {"a": "b=c", "d": ""}
    assert (request.region, request.gpu_class, request.min_vram) == ("eu", "h100", 40 * 10**9)
    assert (request.any_version, request.prefer) == (False, ("min_vram", "region"))
    assert (request.adapter, request.correlation_id, request.retry_token) == ("poet", "c", "t")
    sampling = request.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.top_p) == (9, 0.5, 0.9)
    assert (sampling.top_k, sampling.seed, sampling.stop) == (4, 7, ("x", "y"))
    told = CommandLine(fake).run("submit", "hi", "--model", "m", "--any-version", "--no-wait")
    assert fake.request(told.stdout.strip()).any_version


def test_a_need_that_is_preferred_must_be_given():
    result = CommandLine(FakeBackend({"m": FakeModel()})).run("submit", "hi", "--prefer", "region")
    assert result.exit_code != 0
    assert "prefer names region, which is not given" in result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--chat"], [("user", "hi")]),
        (["--system", "Be brief."], [("system", "Be brief."), ("user", "hi")]),
        (["--chat", "--system", ""], [("system", ""), ("user", "hi")]),
    ],
)
def test_a_prompt_may_be_sent_as_what_a_user_says(options, said):
    fake = FakeBackend(autorun=False)
    request = fake.request(CommandLine(fake).run("submit", "hi", *options, "--no-wait").stdout.strip())
    assert request.prompt == ""
    assert [(message.role, message.content) for message in request.messages] == said


def test_what_is_not_given_is_left_to_the_client():
    fake = FakeBackend(autorun=False)
    plain = CommandLine(fake).run("submit", "hi", "--no-wait").stdout.strip()
    assert fake.request(plain).sampling.max_tokens == 256
    assert fake.request(plain).deadline == 0


def test_the_same_retry_token_is_the_same_job():
    line = CommandLine()
    first = line.document("submit", "hi", "--retry-token", "t", "--no-wait", "--json")
    again = line.document("submit", "hi", "--retry-token", "t", "--no-wait", "--json")
    assert first["job_id"] == again["job_id"]
    assert (first["is_new"], again["is_new"]) == (True, False)
    other = line.run("submit", "ho", "--retry-token", "t", "--no-wait")
    assert other.exit_code == KeyConflict.exit_status
    assert other.stderr.startswith("tether: correlation id 't'")


def test_no_wait_prints_the_id_alone():
    line = CommandLine(FakeBackend(autorun=False))
    result = line.run("submit", "hi", "--no-wait")
    assert result.stdout == f"{line.fake.jobs()[0].job_id}\n"
    assert result.stderr == ""


def test_without_a_model_the_only_one_is_asked_and_else_all_are_named():
    fake = FakeBackend({"one": lambda prompt: "1", "two": lambda prompt: "2"})
    result = CommandLine(fake).run("submit", "hi")
    assert result.exit_code == 2
    assert "choose one with --model. Available: one, two" in result.stderr
    assert CommandLine(fake).run("submit", "hi", "-m", "two").stdout == "2"
    assert "no model is configured" in CommandLine(FakeBackend({})).run("submit", "hi").stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--model", "ecko"), "echo"),
        (("--max-tokens", "0"), "max_tokens"),
        (("--temperature", "nan"), "temperature"),
        (("--label", "a=\0"), "label"),
        (("--adapter", "none"), "adapter"),
    ],
)
def test_a_job_that_is_not_possible_is_refused_with_the_reason(options, words):
    line = CommandLine()
    result = line.run("submit", "hi", *options)
    assert result.exit_code == 2
    assert words in result.stderr
    assert line.fake.jobs() == []


def test_json_is_one_document_at_the_end():
    line = CommandLine()
    told = line.document("submit", "two words", "--label", "a=b", "--json")
    job = line.fake.jobs()[0]
    assert told == {
        "object": "job.result",
        "job_id": job.job_id,
        "correlation_id": job.correlation_id,
        "retry_token": job.retry_token,
        "is_new": True,
        "degraded_from": None,
        "model": "echo",
        "priority": "standard",
        "labels": {"a": "b"},
        "state": "succeeded",
        "text": "two words",
        "finish_reason": "stop",
        "input_tokens": 2,
        "output_tokens": 2,
        "error": None,
    }


def test_events_are_lines_of_json():
    result = CommandLine().run("submit", "two words", "--events")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["kind"] for event in events] == ["submitted", "started", "delta", "delta", "finished"]
    assert len({event["job_id"] for event in events}) == 1
    assert events[3]["texts"] == [" words"]


@pytest.mark.parametrize(
    ("state", "status"), [(JobState.DEAD, 1), (JobState.CANCELLED, 8), (JobState.EXPIRED, 9)]
)
def test_a_job_that_fails_for_good_tells_so_in_every_form(state, status):
    fake = ToldBackend(delta(1, "so "), delta(2, "far"), failed(2, state.value))
    plain = CommandLine(fake).run("submit", "hi")
    assert (plain.exit_code, plain.stdout) == (status, "so far")
    assert plain.stderr.startswith("tether: job ")
    as_json = CommandLine(fake).run("submit", "hi", "--json")
    assert as_json.exit_code == status
    told = json.loads(as_json.stdout)
    assert (told["state"], told["text"], told["output_tokens"]) == (state.value, "so far", 2)
    assert told["error"] == {
        "code": "engine_failed",
        "message": json.loads(as_json.stderr)["error"]["message"],
    }
    assert told["error"]["message"]
    events = CommandLine(fake).run("submit", "hi", "--events")
    assert events.exit_code == status
    assert json.loads(events.stdout.splitlines()[-1])["state"] == state.value


def test_a_model_that_breaks_fails_the_job():
    result = CommandLine(FakeBackend({"m": breaks})).run("submit", "hi")
    assert result.exit_code == 1
    assert "failed permanently (engine_failed)" in result.stderr


def test_a_timeout_says_how_to_come_back():
    line = CommandLine(FakeBackend(autorun=False))
    result = line.run("submit", "hi", "--timeout", "10ms")
    job_id = line.fake.jobs()[0].job_id
    assert result.exit_code == 4
    assert f"tether jobs watch {job_id}" in result.stderr
    assert f"tether: job {job_id} has not finished within 0.01 s; it continues\n" in result.stderr
    assert line.fake.job_port.status(job_id).state is JobState.ACCEPTED


def test_a_short_wait_in_a_pipe_says_why_nothing_came():
    result = CommandLine(FakeBackend(autorun=False)).run("submit", "hi", "--timeout", "500ms")
    assert ": waits in the database: " in result.stderr
    delayed = CommandLine(FakeBackend(autorun=False)).run(
        "submit", "hi", "--timeout", "10ms", "--delay", "1h"
    )
    assert delayed.exit_code == 4
    assert ": waits" not in delayed.stderr


def test_the_timeout_is_that_of_the_whole_command():
    opened = []

    def open_client(url, api_key, *, within=None):
        opened.append(within)
        raise GatewayUnavailable("the gateway is gone")

    assert CommandLine().run("submit", "hi", "--timeout", "1h", open_client=open_client).exit_code == 4
    assert CommandLine().run("submit", "hi", open_client=open_client).exit_code == 4
    assert 0 < opened[0] <= 3600
    assert opened[1] is None


@pytest.mark.parametrize("own", [(), ("--idempotency-key", "mine")])
def test_where_nobody_knows_whether_it_was_accepted_the_key_for_another_try_is_told(own):
    class Hanging(FakeBackend):
        def for_tenant(self, tenant):
            other = super().for_tenant(tenant)
            other.job_port.submit = self.answer
            return other

        def answer(self, requests):
            self.tokens = [request.retry_token for request in requests]
            return [GatewayUnavailable("no answer in time")]

    fake = Hanging()
    result = CommandLine(fake).run("submit", "hi", *own)
    assert result.exit_code == 4
    (token,) = fake.tokens
    assert token == own[1] if own else len(token) == 32
    assert f"never a second one: --idempotency-key {token}\n" in result.stderr


def test_why_nothing_comes_is_told_in_what_is_left_of_the_time():
    times = iter([0.0, 8.0])
    assert told_after(3.0, WaitLimit(10.0, clock=lambda: next(times))) == 1.0


def test_a_timeout_with_json_tells_what_is_known():
    fake = ToldBackend(StreamEvent(kind="started"), delta(1, "so "))
    result = CommandLine(fake).run("submit", "hi", "--timeout", "10ms", "--json")
    assert result.exit_code == 4
    told = json.loads(result.stdout)
    assert (told["state"], told["text"]) == ("running", "so ")
    assert (told["finish_reason"], told["error"]) == (None, None)
    assert json.loads(result.stderr)["error"]["code"] == "result_timeout"


def test_a_stream_that_breaks_for_good_names_the_job():
    fake = ToldBackend(delta(1, "so "), GatewayUnavailable("the gateway is gone"))
    result = CommandLine(fake).run("submit", "hi")
    assert (result.exit_code, result.stdout) == (4, "so ")
    assert f"job {fake.jobs()[0].job_id} continues" in result.stderr
    assert result.stderr.endswith("tether: the gateway is gone\n")


def test_an_interrupt_while_submitting_says_that_nothing_is_known():
    def submit(requests):
        raise KeyboardInterrupt

    class Interrupted(FakeBackend):
        def for_tenant(self, tenant):
            other = super().for_tenant(tenant)
            other.job_port.submit = submit
            return other

    result = CommandLine(Interrupted()).run("submit", "hi")
    assert result.exit_code == 130
    assert "`tether jobs list` shows whether the job was accepted" in result.stderr


RESTARTED = (
    StreamEvent(kind="started"),
    delta(3, "a ", "b ", "c "),
    StreamEvent(kind="restarted", run=1, offset=1),
    delta(3, "B ", "C"),
    finished(3),
)


def test_text_that_is_void_is_told_where_it_was_printed_already():
    result = CommandLine(ToldBackend(*RESTARTED)).run("submit", "hi")
    assert (result.exit_code, result.stdout) == (0, "a b c B C")
    assert "the last 2 tokens above are void" in result.stderr


def test_json_holds_only_text_that_stands():
    told = CommandLine(ToldBackend(*RESTARTED)).document("submit", "hi", "--json")
    assert (told["text"], told["output_tokens"]) == ("a B C", 3)


def test_a_restart_before_any_text_is_no_warning():
    fake = ToldBackend(StreamEvent(kind="restarted", run=1, offset=0), delta(1, "a"), finished(1))
    assert CommandLine(fake).run("submit", "hi").stderr == ""


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("engine_failed", ""),
        ("engine_faild", "; did you mean engine_failed?"),
        ("quota_of_upstream", ""),
    ],
)
def test_a_code_to_retry_on_that_nobody_knows_is_told_and_the_job_is_accepted(code, hint):
    result = CommandLine().run("submit", "hi", "--retry-on", code)
    told = f"--retry-on {code}: no error of Tether's own has this code{hint}\n"
    assert (result.exit_code, result.stdout) == (0, "hi")
    assert result.stderr == ("" if code == "engine_failed" else told)
