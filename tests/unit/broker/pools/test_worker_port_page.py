"""docs/reference/worker-port.md says what the code does: all arguments, parts, codes, fields and times."""

import ast
import inspect
import json
import re
import sys
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
from nacl.signing import SigningKey

import tether.broker
from support.paths import ROOT
from tether.broker.pools.carried_job import CarriedJob
from tether.broker.pools.outcomes import OutcomeKind
from tether.broker.pools.worker_port import WriteStatus
from tether.broker.scripts import shared_definitions
from tether.config.loading import load_settings
from tether.config.models import ModelSettings
from tether.discovery.announcements.presence import WorkerState
from tether.discovery.announcements.wire import verify_envelope
from tether.discovery.announcements.wire_types import AnnouncementFields
from tether.discovery.fleet.liveness import MAX_SILENCE_MS
from tether.discovery.topics import network_id
from tether.jobs import JobError, JobRequest, Message, Sampling
from tether.models.registry import ModelVersion, pool_name
from tether.orchestrator.port_scripts import (
    ANNOUNCE,
    PORT_VERSION,
    WORKER_SCRIPTS,
    port_scripts,
    port_settings,
)
from tether.requests.payload import payload_of
from tether.scheduling import new_placeables
from tether_workers.engine import FinishReason

PAGE = (ROOT / "docs/reference/worker-port.md").read_text("utf-8")
PRELUDE = shared_definitions(Path(tether.broker.__file__).with_name("lua") / "pool")
EXAMPLE = ROOT / "examples/worker_client.py"


@cache
def section(heading):
    """The text under a heading, up to the next one."""
    found = re.search(rf"^#+ `?{re.escape(heading)}`?\n(.*?)(?=^#)", PAGE + "\n#", re.M | re.S)
    assert found, f"no heading {heading!r}"
    return found[1]


def tables(heading):
    """The tables of a section: for each the head of its first column, and the names in that."""
    for table in re.findall(r"(?:^\|.*\n)+", section(heading), re.M):
        head, _, *rows = [line.split(" | ")[0].strip("| ") for line in table.splitlines()]
        yield head, [name for row in rows for name in re.findall(r"`([^`]+)`", row) or [row]]


def table(heading, first):
    """The names in the one table of a section whose heading row begins so."""
    (names,) = (names for head, names in tables(heading) if head == first)
    return names


def header(script):
    """The comment at the head of a script, without what is in parentheses, in one line."""
    text = port_scripts()[script]
    folder = "tether/discovery/over_redis/lua" if script == ANNOUNCE else "tether/broker/lua/pool"
    lines = (ROOT / folder / f"{script}.lua").read_text().splitlines()
    assert lines[0] in text
    comment = " ".join(line.removeprefix("--").strip() for line in lines if line.startswith("--"))
    return re.sub(r" \([^)]*\)", "", comment)


def arguments_in_code(script):
    """Names of a script's arguments, as its header tells them."""
    told = re.search(r"ARGV(?:, for each announcement)?: (.*?)(?: kind: | Returns:? |$)", header(script))[1]
    return [name.removeprefix("then for each: ").rstrip(".") for name in told.split(", ")]


@pytest.mark.parametrize("script", [*WORKER_SCRIPTS, ANNOUNCE])
def test_the_arguments_of_every_script_stand_in_the_page_in_their_order(script):
    written = [name.rstrip(".") for name in table(script, "argument")]
    assert written == arguments_in_code(script)


def test_arguments_are_read_from_the_head_of_a_script():
    assert arguments_in_code("release") == [
        *(
            "epoch",
            "job",
            "dispatch",
            "attempt",
            "draw",
            "run",
            "offset",
            "count",
            "data",
            "to_tail",
            "avoid_ms",
        ),
    ]


def test_the_page_names_every_script_of_the_hash():
    headings = set(re.findall(r"^### `(\w+)`$", PAGE, re.M))
    assert headings == set(port_scripts())
    assert f"`v`: the version of this contract, `{PORT_VERSION}`" in PAGE


def test_the_page_names_every_setting_of_the_hash():
    told = table("Hello", "field")
    assert told == [*port_settings(load_settings(environ={}))]
    assert not set(told) & (set(port_scripts()) | {"v", "digest"})


def test_the_parts_of_a_drawn_job_stand_in_the_page_in_their_order():
    told = re.search(r"Each drawn is \{([^{]*), \{the fields[^}]*\}, \{data", header("draw"))[1]
    assert table("draw", "part") == [*told.split(", "), "fields", "made"]


def test_every_code_stands_in_the_page():
    assert set(table("Codes", "code")) == set(WriteStatus)


def test_the_fields_of_a_job_stand_in_the_page():
    carried = {field.name for field in fields(CarriedJob)} - {"job_id"}
    assert set(table("draw", "field of the hash")) == carried | {"proof"}


def test_the_fields_of_a_body_stand_in_the_page():
    message = Message("user", "hello")
    request = JobRequest(
        model="m", messages=(message,), chat_template_kwargs={"deep": True}, sampling=Sampling()
    )
    written = payload_of(request)
    source = inspect.getsource(new_placeables._payload)
    added = set(re.findall(r'^\s+(?:body\[)?"(\w+)"(?::|\] =)', source, re.M))
    assert added
    assert set(table("draw", "field of the body")) == set(written) | added
    row = next(line for line in section("draw").splitlines() if line.startswith("| `sampling`"))
    assert set(written["sampling"]) <= set(re.findall(r"`(\w+)`", row))


def test_the_fields_of_an_error_and_the_reasons_stand_in_the_page():
    assert table("fail", "field of an error") == [field.name for field in fields(JobError)]
    row = next(line for line in section("finish").splitlines() if line.startswith("| `finish reason`"))
    assert set(get_args(FinishReason)) <= set(re.findall(r"`(\w+)`", row))


def test_the_fields_of_an_outcome_stand_in_the_page():
    added = re.search(r"apply\('XADD', key\('core:outcomes'\), '\*',(.*?)\)\n", PRELUDE, re.S)[1]
    written = set(re.findall(r"'(\w+)',", added))
    assert set(table("What becomes of an end", "field")) == written
    row = next(line for line in section("What becomes of an end").splitlines() if line.startswith("| `kind`"))
    assert set(OutcomeKind) <= set(re.findall(r"`(\w+)`", row))


def test_the_times_of_the_bell_are_those_of_the_scripts():
    source = "\n".join(port_scripts().values())
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\d+) ms \|", section("The bell"), re.M)
    assert len(rows) == 6
    for name, milliseconds in rows:
        assert set(re.findall(rf"^ *(?:local )?{name} = (\d+),?$", source, re.M)) == {milliseconds}


def test_the_fields_of_an_announcement_are_those_of_the_wire():
    names = set(AnnouncementFields.__struct_encode_fields__)
    presence = (ROOT / "docs/reference/presence.md").read_text("utf-8")
    wire = presence[presence.index("## The wire format") : presence.index("### Topics")]
    rows = [line.split(" | ")[0] for line in wire.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == names
    assert set(table("Announcing", "field")) <= names
    row = next(line for line in section("Announcing").splitlines() if line.startswith("| `state`"))
    assert set(re.findall(r"`(\w+)`", row)) - {"state"} == set(WorkerState)
    assert f"at least every {MAX_SILENCE_MS // 1000} s" in section("Announcing")


def test_the_example_for_a_check_is_what_the_code_makes():
    told = json.loads(re.search(r"^```json\n(.*?)^```", section("Who you are"), re.M | re.S)[1])
    version = ModelVersion.from_settings(ModelSettings(engine="null", **told["model"]))
    assert told["digest"] == version.digest
    assert told["pool"] == pool_name("a100", "eu-1", version)
    assert told["network"] == network_id(b"")
    key = SigningKey(bytes(range(32)))
    assert told["pubKey"] == key.verify_key.encode().hex()
    envelope = bytes.fromhex(told["signature"]) + told["announcement"].encode()
    presence = verify_envelope(envelope, lambda pub_key: pub_key == told["pubKey"], told["network"])
    assert presence.boot_id == told["bootId"]
    assert (presence.pools, presence.supported[0].digest) == ((told["pool"],), told["digest"])


def test_the_defaults_of_a_model_are_those_of_the_page():
    names = ("version", "source", "quantize", "context")
    told = [json.dumps(ModelSettings.model_fields[name].default) for name in names]
    assert f"with their defaults: {', '.join(f'`{each}`' for each in told)}" in section("Who you are")


def test_the_example_worker_has_nothing_of_tether():
    imported = set()
    for node in ast.walk(ast.parse(EXAMPLE.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])
    assert imported - sys.stdlib_module_names == {"redis", "nacl"}
