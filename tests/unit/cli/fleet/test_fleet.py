"""What `tether fleet list`, `show` and `watch` make of a fleet."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from support.presences import DIGEST, KEY, OTHER_KEY, apply, presence, public
from tether.core.fleet_changes import ChangeKind, changes, first_look, look_at
from tether.core.fleet_documents import Drawing, change_to_json, whole_worker_to_json, worker_to_json
from tether.core.fleet_reading import meant_member
from tether.discovery.announcements.presence import (
    Artifact,
    ArtifactKind,
    ArtifactState,
    CacheManifest,
    ModelState,
    Supported,
    WorkerState,
)
from tether.discovery.fleet.fleet import Fleet, judged, unroutable
from tether.discovery.fleet.shown_states import ShownState, shown_state
from tether.errors import InvalidRequest, WorkerNotFound
from tether_cli.fleet.texts import (
    COLUMNS,
    LEFT_OUT_FIRST,
    cache_lines,
    change_line,
    fitting,
    lines,
    row,
)

WORKER, OTHER = presence().worker_id, presence(OTHER_KEY).worker_id
GIB = 2**30
AT = 1_790_000_000_000


def fleet_of(*announced, now=0):
    fleet = Fleet()
    for one in announced:
        fleet = apply(fleet, one, now)
    return fleet


def seen(fleet, now=0, worker=WORKER):
    return look_at(fleet, now)[worker]


def told(*fleets, now=0):
    """What happened between the fleets, one after the other."""
    looks = [look_at(fleet, now) for fleet in fleets]
    return [
        (change.kind, change.member.presence.worker_id, change.state, change.former)
        for before, after in pairwise(looks)
        for change in changes(before, after, now)
    ]


def test_a_worker_shows_what_keeps_jobs_from_it():
    serving = fleet_of(presence())
    draining = fleet_of(presence(state=WorkerState.DRAINING))
    lost = unroutable(draining, presence().boot_id)
    assert seen(serving).state is ShownState.SERVING
    assert seen(serving, now=7_499).state is ShownState.SERVING
    assert seen(serving, now=7_500).state is ShownState.SUSPECT
    assert seen(draining, now=7_500).state is ShownState.DRAINING
    cordoned = fleet_of(presence(state=WorkerState.CORDONED))
    assert seen(cordoned, now=7_500).state is ShownState.CORDONED
    assert seen(lost).state is ShownState.UNROUTABLE
    assert shown_state(lost, lost.members[WORKER], 0) is ShownState.UNROUTABLE
    cut_off = fleet_of(presence(state=WorkerState.DISCONNECTED))
    assert seen(cut_off, now=7_500).state is ShownState.DISCONNECTED
    silent = judged(serving, {WORKER: frozenset(presence().pools)})
    assert seen(silent, now=7_500).state is ShownState.SILENT
    assert seen(judged(serving, {WORKER: frozenset({"another"})})).state is ShownState.SERVING


def test_who_is_there_is_told_first_and_whoever_no_longer_lives_is_not():
    fleet = fleet_of(presence(), presence(OTHER_KEY))
    present = first_look(look_at(fleet, 14_999))
    assert [change.member.presence.worker_id for change in present] == sorted([WORKER, OTHER])
    assert {change.kind for change in present} == {ChangeKind.PRESENT}
    assert first_look(look_at(fleet, 15_000)) == []


def test_each_change_of_a_worker_is_told_once():
    empty = Fleet()
    one = fleet_of(presence())
    newer = apply(one, presence(sequence=2, free=1), 0)
    draining = apply(newer, presence(sequence=3, state=WorkerState.DRAINING), 0)
    again = apply(draining, presence(sequence=4), 0)
    lost = unroutable(again, presence().boot_id)
    restarted = apply(lost, presence(boot=2), 0)
    assert told(empty, one, newer, draining, again, lost, lost, restarted, empty) == [
        (ChangeKind.JOINED, WORKER, ShownState.SERVING, None),
        (ChangeKind.STATE, WORKER, ShownState.DRAINING, ShownState.SERVING),
        (ChangeKind.STATE, WORKER, ShownState.SERVING, ShownState.DRAINING),
        (ChangeKind.STATE, WORKER, ShownState.UNROUTABLE, ShownState.SERVING),
        (ChangeKind.RESTARTED, WORKER, ShownState.SERVING, None),
        (ChangeKind.LEFT, WORKER, ShownState.SERVING, None),
    ]


def test_a_goodbye_is_told_from_silence():
    fleet = fleet_of(presence())
    before = look_at(fleet, 0)
    gone = look_at(apply(fleet, presence(sequence=2, state=WorkerState.STOPPED), 9_000), 9_000)
    (goodbye,) = changes(before, gone, 9_000)
    (silence,) = changes(before, look_at(fleet, 15_000), 15_000)
    assert (goodbye.kind, goodbye.said_goodbye) == (ChangeKind.LEFT, True)
    assert (silence.kind, silence.said_goodbye) == (ChangeKind.LEFT, False)
    assert change_line(change_to_json(goodbye, {}, AT)).endswith(f"  {WORKER}  left: it said goodbye")
    assert change_line(change_to_json(silence, {}, AT)).endswith(
        f"  {WORKER}  left: its announcements stopped"
    )


KEYS = [SigningKey(bytes([number]) * 32) for number in range(1, 5)]
announcements = st.builds(
    lambda key, boot, sequence, state: presence(key, boot=boot, sequence=sequence, state=state),
    st.sampled_from(KEYS),
    st.integers(1, 2),
    st.integers(1, 3),
    st.sampled_from(WorkerState),
)


@given(st.lists(st.tuples(announcements, st.integers(0, 6_000), st.booleans()), max_size=20))
def test_the_changes_from_the_first_look_on_tell_who_is_there_and_in_which_state(heard):
    fleet, now = Fleet(), 0
    known, before = {}, look_at(fleet, now)
    for announced, later, loses in heard:
        now += later
        fleet = apply(fleet, announced, now)
        if loses:
            fleet = unroutable(fleet, announced.boot_id)
        after = look_at(fleet, now)
        for change in changes(before, after, now):
            worker = change.member.presence.worker_id
            if change.kind is ChangeKind.LEFT:
                assert known.pop(worker)[0] == change.state
                continue
            assert (worker in known) == (change.kind is not ChangeKind.JOINED)
            assert change.former is (known[worker][0] if change.kind is ChangeKind.STATE else None)
            known[worker] = (change.state, change.member.presence.boot_counter)
        assert known == {
            worker: (one.state, one.member.presence.boot_counter) for worker, one in after.items()
        }
        before = after


WHOLE = presence(
    slots=8,
    free=5,
    queue_depth=2,
    latency_hops=3,
    vram_total=24 * GIB,
    vram_free=GIB * 41 // 2,
    software_version="1.2.3",
    supported=(
        Supported("warm", "1", DIGEST, ModelState.WARM, 12.0),
        Supported("cold", "2", DIGEST, ModelState.COLD),
        Supported("coming", "3", DIGEST, ModelState.LOADING),
    ),
    pools=("pool-1",),
    prefill_tokens_per_second=1_500.0,
)


def test_a_row_has_everything_in_its_column():
    cells = dict(zip(COLUMNS, row(worker_to_json(*seen(fleet_of(WHOLE)), "big box", 1_240)), strict=True))
    assert cells == {
        "worker": WORKER,
        "name": "big box",
        "state": "serving",
        "gpu class": "cpu",
        "region": "local",
        "free": "5/8",
        "queue": "2",
        "tokens/s": "40.0",
        "models": "warm* cold coming+",
        "vram": "20.5/24.0 GiB",
        "hops": "3",
        "last seen": "1.2s",
        "version": "1.2.3",
    }


def test_what_a_worker_does_not_have_is_a_dash():
    bare = presence(supported=(), pools=(), software_version="")
    cells = dict(zip(COLUMNS, row(worker_to_json(*seen(fleet_of(bare)), "", 0)), strict=True))
    assert {name for name, cell in cells.items() if cell == "-"} == {"name", "models", "vram", "version"}


@given(st.integers(0, 200), st.integers(0, 3))
def test_a_terminal_gets_the_columns_for_which_it_has_room(width, count):
    rows = [row(worker_to_json(*seen(fleet_of(WHOLE)), "big box", 0))] * count
    columns, cut = fitting(rows, width)
    assert [dict(zip(columns, cells, strict=True)) for cells in cut] == [
        {name: cell for name, cell in zip(COLUMNS, cells, strict=True) if name in columns} for cells in rows
    ]
    left_out = [name for name in COLUMNS if name not in columns]
    assert sorted(left_out) == sorted(LEFT_OUT_FIRST[: len(left_out)])
    needed = sum(max(map(len, cells)) + 3 for cells in zip(columns, *cut, strict=True)) + 1
    assert needed <= width or len(left_out) == len(LEFT_OUT_FIRST)
    if left_out and width >= needed:
        back = COLUMNS.index(LEFT_OUT_FIRST[len(left_out) - 1])
        assert needed + max(len(cells[back]) for cells in (COLUMNS, *rows)) + 3 > width


def test_a_name_cannot_leave_its_cell():
    cells = row(worker_to_json(*seen(fleet_of(presence())), "a\tb\nc\x1b[2J", 0))
    assert cells[1] == "a b c␛[2J"
    (change,) = changes({}, look_at(fleet_of(presence()), 0), 0)
    assert "(a b c␛[2J)" in change_line(change_to_json(change, {WORKER: "a\tb\nc\x1b[2J"}, AT))


def whole(drawing):
    return whole_worker_to_json(*seen(fleet_of(WHOLE)), "big box", 1_240, CACHE, drawing)


def test_show_tells_what_the_table_has_no_room_for():
    found = lines(whole(Drawing(frozenset(), 340)))
    assert ("boot id", f"{WORKER}.1") in found
    assert ("key", public(KEY)) in found
    assert ("slots", "5 of 8 free") in found
    assert ("hops", "3 of 25 ms") in found
    assert ("prefill", "1500 tokens/s") in found
    assert [value for name, value in found if name == "model"] == [
        f"warm 1, warm, loads in 12 s, {DIGEST}",
        f"cold 2, cold, {DIGEST}",
        f"coming 3, loading, {DIGEST}",
    ]
    assert ("pool", "pool-1") in found
    assert ("last draw", "0.3 s ago") in found
    silent = lines(whole(Drawing(frozenset({"pool-1"}), None)))
    assert ("pool", "pool-1, from which it draws no jobs") in silent
    assert ("last draw", "-") in silent


CACHE = CacheManifest(
    (
        Artifact(
            DIGEST, ArtifactKind.MODEL, ArtifactState.WARM, GIB * 3 // 2, pinned=True, last_use=1_000_000_000
        ),
        Artifact("cd" * 32, ArtifactKind.ADAPTER, ArtifactState.DISK),
    ),
    "ef" * 32,
    is_complete=False,
)


def test_the_cache_is_shown_artifact_by_artifact():
    assert cache_lines(whole(Drawing(frozenset(), None))["cache"]) == [
        ("cached model", f"{DIGEST}, warm, 1.50 GiB, pinned, used 1970-01-12T13:46:40Z"),
        ("cached adapter", f"{'cd' * 32}, disk, never used"),
    ]


def test_a_worker_is_json():
    looked = seen(fleet_of(WHOLE))
    brief = worker_to_json(*looked, "big box", 700)
    assert json.loads(json.dumps(brief)) == {
        "object": "fleet_worker",
        "worker_id": WORKER,
        "name": "big box",
        "boot_id": f"{WORKER}.1",
        "state": "serving",
        "gpu_class": "cpu",
        "region": "local",
        "slots": 8,
        "free": 5,
        "queue_depth": 2,
        "tokens_per_second": 40.0,
        "prefill_tokens_per_second": 1_500.0,
        "models": [
            {"name": "warm", "version": "1", "digest": DIGEST, "state": "warm", "load_seconds": 12.0},
            {"name": "cold", "version": "2", "digest": DIGEST, "state": "cold", "load_seconds": 0.0},
            {"name": "coming", "version": "3", "digest": DIGEST, "state": "loading", "load_seconds": 0.0},
        ],
        "vram_total": 24 * GIB,
        "vram_free": GIB * 41 // 2,
        "latency_hops": 3,
        "heard_ms": 700,
        "software_version": "1.2.3",
    }
    drawing = Drawing(frozenset(WHOLE.pools), None)
    all_of_it = whole_worker_to_json(*looked, "big box", 700, CACHE, drawing)
    assert all_of_it.items() >= brief.items()
    assert (all_of_it["pools"], all_of_it["silent_pools"]) == (["pool-1"], ["pool-1"])
    assert all_of_it["asked_ms"] is None
    assert all_of_it["cache"]["is_complete"] is False
    assert all_of_it["cache"]["artifacts"][0] == {
        "digest": DIGEST,
        "kind": "model",
        "state": "warm",
        "size": GIB * 3 // 2,
        "pinned": True,
        "last_use": 1_000_000_000,
    }


def test_a_change_is_a_line_or_json():
    fleet = fleet_of(presence())
    lost = unroutable(fleet, presence().boot_id)
    (joined,) = changes({}, look_at(fleet, 0), 0)
    (became,) = changes(look_at(fleet, 0), look_at(lost, 0), 0)
    names = {WORKER: "big box"}
    start = f"2026-09-21T14:13:20Z  {WORKER} (big box)  "
    assert change_line(change_to_json(joined, names, AT)) == f"{start}joined: serving, cpu in local, 8 slots"
    assert change_line(change_to_json(became, names, AT)) == f"{start}unroutable, was serving: it lost a job"
    document = json.loads(json.dumps(change_to_json(became, names, AT)))
    assert document == {
        "kind": "state",
        "at": AT,
        "worker_id": WORKER,
        "name": "big box",
        "boot_id": f"{WORKER}.1",
        "state": "unroutable",
        "former_state": "serving",
        "said_goodbye": None,
        "gpu_class": "cpu",
        "region": "local",
        "slots": 8,
    }
    (left,) = changes(look_at(fleet, 0), {}, 0)
    assert change_to_json(left, names, AT)["state"] is None
    assert change_to_json(left, names, AT)["said_goodbye"] is True
    small = replace(joined, member=fleet_of(presence(slots=1, free=1)).members[WORKER])
    assert change_line(change_to_json(small, {}, AT)).endswith(", 1 slot")


FLEET = fleet_of(presence(), presence(OTHER_KEY))
NAMES = {WORKER: "big box", OTHER: "worker-1", "0123456789abcdef": "away"}


@pytest.mark.parametrize("text", [WORKER, f"{WORKER}.7", public(KEY), public(KEY).upper(), "big box"])
def test_a_worker_is_meant_by_id_life_key_or_name(text):
    assert meant_member(text, FLEET, NAMES).presence.worker_id == WORKER


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bigbox", "there is no worker 'bigbox'; did you mean big box?"),
        (WORKER[:-1] + ("0" if WORKER[-1] != "0" else "1"), f"did you mean {WORKER}?"),
        (
            "xyzzy",
            "there is no worker 'xyzzy'; the live ones are in GET /v1/operator/workers and in `tether fleet "
            "list`",
        ),
        ("away", "worker 'away' is not live"),
        ("0123456789abcdef", "worker '0123456789abcdef' is not live"),
        ("aways", "`tether fleet list`"),
    ],
)
def test_who_is_not_there_is_said_with_what_was_meant(text, says):
    with pytest.raises(WorkerNotFound) as caught:
        meant_member(text, FLEET, NAMES)
    assert says in str(caught.value)


def test_what_may_be_a_private_key_is_not_repeated():
    with pytest.raises(WorkerNotFound) as caught:
        meant_member("ab" * 32, FLEET, NAMES)
    assert "abab" not in str(caught.value)


def test_a_name_that_several_have_is_no_ones_unless_one_of_them_is_there():
    with pytest.raises(InvalidRequest) as caught:
        meant_member("same", FLEET, {WORKER: "same", OTHER: "same"})
    assert WORKER in str(caught.value)
    assert OTHER in str(caught.value)
    alone = fleet_of(presence())
    assert meant_member("same", alone, {WORKER: "same", OTHER: "same"}).presence.worker_id == WORKER


def test_an_id_is_never_taken_for_a_name():
    assert meant_member(WORKER, FLEET, {OTHER: WORKER}) is FLEET.members[WORKER]
