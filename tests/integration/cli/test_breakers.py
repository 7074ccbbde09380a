"""`tether breakers`, on the machine with the database and Redis, and through a gateway."""

import contextlib
import json

import pytest
from click.testing import CliRunner

from support.gateways import RunningGateway
from support.placed_fleet import PlacedFleet
from support.waiting import PATIENCE_SECONDS, eventually
from tether.gateway.keys.api_keys import TENANT_SCOPES, Scope
from tether.local.breaker_check import check_breakers, shut_breakers
from tether.local.doctor import CheckStatus
from tether.scheduling.breaker import Breaker, BreakerName, TripCause
from tether.store import Store
from tether.store.audit_pages import audit_page
from tether_cli.environment import CommandEnvironment
from tether_cli.main import main

NAME = BreakerName("m", "1", "eu")


class Verbs:
    def __init__(self, fleet, gateway):
        self.fleet = fleet
        self.gateway = gateway
        self.client = fleet.client(0)
        self.shared = self.client._backend._plane.breakers

    def run(self, *words, status=0, scopes=(Scope.OPERATOR,)):
        environ = {"TETHER_CONFIG": str(self.fleet.cluster.file), "TETHER_DIR": None}
        if self.gateway is not None:
            environ = {"TETHER_API_KEY": self.gateway.key("default", scopes)}
            words = (*words, "--url", self.gateway.url)
        surroundings = CommandEnvironment(find_running=lambda: None)
        result = CliRunner(env=environ).invoke(main, ["breakers", *words], obj=surroundings)
        assert result.exit_code == status, result.output
        return result

    def status(self):
        environ = {"TETHER_API_KEY": self.gateway.key("default", TENANT_SCOPES)}
        return CliRunner(env=environ).invoke(main, ["status", "--url", self.gateway.url]).output

    def json(self, *words, **options):
        return json.loads(self.run(*words, "--json", **options).stdout)

    def open(self, name=NAME):
        def decide(breaker, samples, now):
            return Breaker(
                cause=TripCause.FAILURES, opened_at=now, until=now + 10**5, trips=2, share=0.75, count=40
            )

        self.shared.change(name, decide)

    def audited(self):
        with Store(self.fleet.cluster.settings.database.url) as store:
            entries = store.read(audit_page, limit=100).entries
        return [(each.action, each.target, each.result) for each in entries if "breakers" in each.action]


@pytest.fixture(params=["here", "over HTTP"])
def verbs(request, monkeypatch):
    with contextlib.closing(PlacedFleet(monkeypatch)) as fleet, contextlib.ExitStack() as stack:
        is_here = request.param == "here"
        gateway = None if is_here else stack.enter_context(RunningGateway(fleet.cluster.settings))
        yield Verbs(fleet, gateway)


def test_without_any_it_says_so(verbs):
    assert verbs.json("list") == {"object": "list", "data": []}


def test_an_open_one_is_listed_and_reset_and_both_are_told(verbs):
    verbs.open()
    (one,) = verbs.json("list")["data"]
    assert (one["model"], one["version"], one["region"], one["state"]) == ("m", "1", "eu", "open")
    assert (one["cause"], one["why"], one["trips"]) == ("failures", "75% of 40 attempts had failed", 2)
    assert one["next_probe_at"] - one["opened_at"] == 10**5
    assert "m@1\teu\topen" in verbs.run("list").stdout
    document = verbs.json("reset", "m@1", "eu")
    assert [each["state"] for each in document["data"]] == ["open"]
    assert verbs.shared.told() == {}
    assert ("breakers.reset", "m@1:eu", "ok") in verbs.audited()


def test_a_name_alone_is_all_its_versions_in_the_region(verbs):
    for version, region in (("1", "eu"), ("2", "eu"), ("1", "us")):
        verbs.open(BreakerName("m", version, region))
    assert len(verbs.json("reset", "m", "eu")["data"]) == 2
    assert set(verbs.shared.told()) == {BreakerName("m", "1", "us")}


@pytest.mark.parametrize("names", [("other", "eu"), ("m", "us"), ("m@2", "eu")])
def test_one_that_is_not_there_is_refused(verbs, names):
    verbs.open()
    result = verbs.run("reset", *names, status=2)
    assert "tether breakers list" in result.output
    assert verbs.shared.told()


def test_only_operators_may(verbs):
    if verbs.gateway is None:
        return
    verbs.open()
    verbs.run("reset", "m", "eu", status=6, scopes=TENANT_SCOPES)


def test_what_is_served_tells_of_an_open_one(verbs):
    assert [model.shut_regions for model in verbs.client.models() if model.name == "m"] == [{}]
    verbs.open()

    def shut():
        return {f"{each.name}@{each.version}": each.shut_regions for each in verbs.client.models()}

    found = eventually(
        lambda: any(shut().values()) and shut(), PATIENCE_SECONDS, "the client knows the breaker"
    )
    (why,) = found.pop("m@1").values()
    assert "circuit breaker of m@1 in region eu is open" in why
    assert not any(found.values())
    if verbs.gateway is not None:
        line = eventually(
            lambda: [line for line in verbs.status().splitlines() if line.startswith("breaker")],
            PATIENCE_SECONDS,
            "the gateway knows it",
        )
        assert "region eu" in line[0]
        assert line[0].endswith("tether breakers list")


def test_doctor_warns_of_an_open_one(verbs):
    settings = verbs.fleet.cluster.settings
    assert check_breakers(shut_breakers(settings, None), 0).verdict is CheckStatus.OK
    verbs.open()
    check = check_breakers(shut_breakers(settings, None), 0)
    assert check.verdict is CheckStatus.WARN
    assert "circuit breaker of m@1 in region eu is open" in check.found
    assert check_breakers(None, 0).verdict is CheckStatus.OK
