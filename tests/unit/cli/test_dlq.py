"""`tether dlq`, over a fake."""

import base64
import json

import pytest

from support.command_line import CommandLine
from tether.client.api import Tether
from tether.dead_letters import LetterDetails
from tether.dead_messages import DeadMessage
from tether.deaths import Death, evidence_of_deaths
from tether.errors import EngineFailed, InvalidRequest
from tether.histories import AttemptRecord
from tether.testing import FakeBackend
from tether_cli.dlq.messages import dead_message_lines
from tether_cli.dlq.texts import letter_lines
from tether_cli.job_history import print_attempts


def _fail(prompt):
    raise EngineFailed("it broke")


def _refuse(prompt):
    raise InvalidRequest("it does not like this prompt")


@pytest.fixture
def command():
    return CommandLine(FakeBackend({"broken": _fail, "refusing": _refuse}))


def die(command, model="broken", tenant="default"):
    return Tether(backend=command.fake.for_tenant(tenant)).submit(model, "x").job_id


def letters(command, *words):
    return command.document("dlq", "list", "--json", *words)


def test_letters_are_listed_with_their_tokens_and_when_they_expire(command):
    job_id = die(command)
    (letter,) = letters(command)
    assert (letter["job_id"], letter["object"]) == (job_id, "dead_letter")
    result = command.run("dlq", "list")
    names, row = result.stdout.splitlines()
    assert names.split("\t")[0] == "JOB"
    assert letter["retry_token"] in row
    assert "attempts_exhausted" in row
    assert "1 open" in result.stderr
    assert "do not expire" in result.stderr
    assert letters(command, "--reason", "poison") == []


def test_a_letter_is_shown_with_all_that_is_known(command):
    job_id = die(command)
    shown = command.run("dlq", "show", job_id).stdout
    (letter,) = letters(command)
    for text in (job_id, "attempts_exhausted: its attempts failed", letter["retry_token"], "engine_failed"):
        assert text in shown
    attempts = command.run("jobs", "show", job_id).stdout.rpartition("\n\n")[2]
    assert attempts.startswith("ATTEMPT")
    assert shown.endswith(f"\n\n{attempts}")
    assert command.document("dlq", "show", job_id, "--json")["chain"][0]["job_id"] == job_id
    absent = command.run("dlq", "show", "019ab0c1-7d5e-7aaa-8bbb-0123456789ab")
    assert (absent.exit_code, "no dead letter" in absent.stderr) == (2, True)


def test_a_token_retries_once_and_then_tells_the_job(command):
    job_id = die(command)
    (letter,) = letters(command)
    assert "\nexpires         never\n" in command.run("dlq", "show", job_id).stdout
    first = command.run("dlq", "retry", letter["retry_token"])
    assert first.stdout.startswith(f"{job_id} retried as ")
    shown = command.run("dlq", "show", job_id).stdout
    assert ("\nclosed  " in shown, "\nexpires" in shown) == (True, False)
    second = command.run("dlq", "retry", letter["retry_token"])
    assert "the token was used before" in second.stdout
    made = command.document("dlq", "retry", letter["retry_token"], "--json")
    assert made["is_new"] is False
    chain = command.run("dlq", "show", made["retried_as"]).stdout
    assert f"chain 1{' ' * 8}" in chain
    assert f"{job_id} dead (attempts_exhausted)" in chain
    shown = command.run("jobs", "show", made["retried_as"]).stdout
    assert "retry of" in shown
    assert "retried as" in command.run("jobs", "show", job_id).stdout
    assert command.run("dlq", "retry", "made-up").exit_code == 2


def test_all_that_match_are_retried_and_the_status_tells_that_some_were_not(command):
    dead, refused = die(command), die(command, "refusing")
    result = command.run("dlq", "retry", "--where", "all")
    assert result.exit_code == 1
    assert f"{dead} retried as" in result.stdout
    assert f"{refused} not retried" in result.stdout
    assert "1 retried, 1 not" in result.stderr
    forced = command.run("dlq", "retry", "--where", "model=refusing", "--force", "--json")
    assert (forced.exit_code, json.loads(forced.stdout)["is_new"]) == (0, True)


@pytest.mark.parametrize(
    "words",
    [
        ["retry"],
        ["retry", "token", "--where", "all"],
        ["retry", "--where", "color=red"],
        ["retry", "--where", "model"],
        ["retry", "--where", "model=a", "--where", "model=b"],
        ["purge"],
        ["purge", "--where", "all"],
        ["list", "--state", "dead"],
    ],
)
def test_what_is_not_said_well_is_a_usage_error(command, words):
    die(command)
    assert command.run("dlq", *words).exit_code == 2
    assert len(letters(command)) == 1


def test_letters_are_purged_by_filter(command):
    die(command)
    die(command, "refusing")
    assert command.run("dlq", "purge", "--yes", "--where", "model=refusing").stdout == "1 purged\n"
    assert [letter["model"] for letter in letters(command)] == ["broken"]
    assert command.document("dlq", "purge", "--yes", "--json", "--where", "all") == {"purged": 1}


def test_an_export_is_one_letter_a_line(command):
    jobs = [die(command) for _ in range(120)]
    lines = command.run("dlq", "export").stdout.splitlines()
    assert [json.loads(line)["job_id"] for line in lines] == jobs[::-1]


def test_the_status_tells_how_many_letters_are_open(command):
    assert "letters" not in command.run("status").stdout
    die(command)
    assert "letters  1 open, the oldest" in command.run("status").stdout
    assert command.document("status", "--json")["dead_letters"]["open"] == 1


def test_an_operator_reaches_the_letters_of_all_tenants(command):
    die(command, tenant="research")
    assert letters(command) == []
    (letter,) = letters(command, "--tenant", "research")
    assert "research" in command.run("dlq", "list", "--all-tenants").stdout
    assert command.run("dlq", "retry", letter["retry_token"]).exit_code == 2
    assert command.run("dlq", "retry", "--all-tenants", letter["retry_token"]).exit_code == 0


def test_the_deaths_of_poison_are_told_in_words(capsys):
    deaths = (
        Death(boot="w.1", how="oom", ran=1_250, beside=7),
        Death(boot="w.2", how="signal 9", ran=300, alone=True),
    )
    evidence = evidence_of_deaths(deaths, 2)
    attempts = tuple(
        AttemptRecord(dispatch=1, attempt=number, worker=death.boot, cause="died", evidence=kept)
        for number, (death, kept) in enumerate(zip(deaths, evidence["deaths"], strict=True), 1)
    )
    letter = LetterDetails(job_id="job", tenant_id="t", reason="poison", evidence=evidence, attempts=attempts)
    told = dict(letter_lines(letter))
    assert (
        told["death 1"] == "w.1 was killed by the kernel, out of memory 1.2 s after it began, beside 7 others"
    )
    assert told["death 2"] == "w.2 was killed by SIGKILL 0.3 s after it began, alone, in a trial"
    print_attempts(letter.attempts)
    _, _, *rows = capsys.readouterr().out.splitlines()
    for row, death in zip(rows, ("death 1", "death 2"), strict=True):
        process, words = told[death].split(" ", 1)
        assert process in row
        assert f"its worker's process {words}" in row


@pytest.mark.parametrize("payload", [b"no JSON", b"\xff\xfe"])
def test_a_dead_message_that_is_no_json_is_shown_in_base64(payload):
    encoded = base64.b64encode(payload).decode()
    message = DeadMessage(queue="q", retry_token="1-x", died_at=0, problem="no JSON", payload=encoded)
    *facts, blank, content = dead_message_lines(message)
    assert (blank, content) == ("", encoded)
    assert "died         1970-01-01T00:00:00Z" in facts
    assert "expires      never" in facts


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_token_that_makes_no_job_stops_no_other(command, form):
    job_id = die(command)
    (letter,) = letters(command)
    result = command.run("dlq", "retry", "made-up", letter["retry_token"], *form)
    assert (result.exit_code, job_id in result.stdout) == (2, True)
    assert "made-up: no dead letter of yours has this retry token" in result.stderr


def test_a_jobs_id_in_place_of_a_token_is_told(command):
    job_id = die(command)
    result = command.run("dlq", "retry", job_id)
    assert result.exit_code == 2
    assert f"{job_id} is a job's id and no retry token: `tether dlq show {job_id}`" in result.stderr


def test_a_reason_that_there_is_not_is_told_with_those_that_there_are(command):
    die(command)
    assert "reasons are attempts_exhausted, " in command.run("dlq", "list", "--reason", "posion").stderr
    assert "reasons are" not in command.run("dlq", "list", "--reason", "poison").stderr
