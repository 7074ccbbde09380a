"""The routes of workers: those that are heard of, and commands to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tether.core.fleet_commands import tell_worker, whole_cache
from tether.core.fleet_documents import drawing_of, fleet_to_json, list_fleet, whole_worker_to_json
from tether.core.fleet_reading import meant_member
from tether.core.pool_backlogs import last_worker_of, owed_jobs
from tether.discovery.commands.command import Action, Command
from tether.discovery.fleet.shown_states import shown_state
from tether.errors import InvalidRequest, WorkerNotFound
from tether.gateway.acts import act_of, log_of
from tether.gateway.fleet_watch import FleetChangeEncoder
from tether.gateway.jobs.queries import single
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.openapi import in_query
from tether.gateway.operator.documents import (
    OPERATOR,
    FleetCommandDocument,
    WholeWorkerDocument,
    WorkerListDocument,
)
from tether.gateway.operator.fleet_reads import whole_fleet
from tether.gateway.responses import json_answer
from tether.gateway.routes import Handler, Reply, RoomRoutes
from tether.gateway.services import GatewayServices
from tether.gateway.sse.response import EventStreamResponse
from tether.ids import NO_JOB, PoolName

ROUTES = RoomRoutes("operator", prefix=OPERATOR)
"""The routes under ``/v1/operator/workers``."""

_ABOUT = {
    Action.CORDON: "tell a worker to take no new jobs, and to finish those that it runs",
    Action.DRAIN: "tell a worker to take no new jobs, and to hand over those that do not finish in time",
    Action.UNCORDON: "tell a worker to take jobs again, after either of the two",
}


@ROUTES.declare(
    "GET",
    "/workers",
    "List live workers",
    about="the live workers of the fleet, each with its state",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The workers.", WorkerListDocument)},
)
async def list_workers(edge: GatewayServices) -> Response:
    return await edge.call(_list, edge)


@ROUTES.declare(
    "GET",
    "/fleet/changes",
    "Watch the fleet as server-sent events",
    about="the live workers, then an event for each that joins, leaves or changes state",
    details="It has no end of its own, and counts as a stream of the key's tenant. After `interrupted`, if "
    "that is `retryable`, ask again: all workers are told again then.",
    scopes=(Scope.OPERATOR,),
    replies={
        200: Reply(
            "Events: present, joined, restarted, state, left; away and back of Redis, which tells of them.",
            content={
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "example": 'event: state\ndata: {"kind":"state","worker_id":"8c1c1748ad451a4f"}\n\n',
                }
            },
        )
    },
)
async def watch_fleet(edge: GatewayServices, caller: Caller) -> Response:
    watch = edge.core().fleet_watch
    stream = edge.streams.open(NO_JOB, caller, FleetChangeEncoder())
    try:
        stream.subscribe(watch.follow(stream.deliver))
    except BaseException:
        edge.streams.close(stream)
        raise
    return EventStreamResponse(edge.streams, stream)


@ROUTES.declare(
    "GET",
    "/workers/{worker}",
    "Show a live worker",
    about="everything that a worker announces: by its id, boot id, public key or unique name",
    scopes=(Scope.OPERATOR,),
    replies={200: Reply("The worker.", WholeWorkerDocument)},
    details="With `full=true` a worker whose cache does not fit in its announcements is asked for all of it; "
    "it answers operators that it trusts.",
    errors=(404, 422, 504),
    parameters=[
        in_query(
            "full",
            {"type": "boolean", "default": False},
            "Whether to ask the worker for its complete cache, if that does not fit in an announcement.",
        )
    ],
)
async def show_worker(edge: GatewayServices, request: Request, worker: str) -> Response:
    full = single(request.query_params.multi_items(), ("full",)).get("full", "false")
    if full not in ("true", "false"):
        raise InvalidRequest(f"full={full[:80]!r} is neither true nor false")
    return await edge.call(partial(_show, edge, worker, is_full=full == "true"))


def _handler_of(action: Action) -> Handler:
    async def tell(edge: GatewayServices, caller: Caller, request: Request, worker: str) -> Response:
        return await edge.call(_tell, edge, caller, request, worker, action)

    return tell


for _action, _about in _ABOUT.items():
    ROUTES.declare(
        "POST",
        f"/workers/{{worker}}/{_action.value}",
        f"{_action.value.capitalize()} a worker",
        about=_about,
        details="The answer does not wait for the worker: its `state` shows when it has obeyed.",
        scopes=(Scope.OPERATOR,),
        replies={202: Reply("The command was sent.", FleetCommandDocument)},
        errors=(404, 422),
    )(_handler_of(_action))


def _list(edge: GatewayServices) -> Response:
    with whole_fleet(edge) as reading:
        found = list_fleet(reading)
    return json_answer(fleet_to_json(found))


def _show(edge: GatewayServices, worker: str, *, is_full: bool) -> Response:
    with whole_fleet(edge) as reading:
        fleet, names, now = reading.view.fleet, reading.names, reading.now
        member = meant_member(worker, fleet, names)
        drawing = drawing_of(member, fleet, reading.view.evidence, reading.held_pools())
        last = last_worker_of(reading, member.presence.worker_id, _owed(edge))
        cache = member.presence.cache
        if is_full and not cache.is_complete:
            cache = whole_cache(reading, member)
    name, state = names.get(member.presence.worker_id, ""), shown_state(fleet, member, now)
    return json_answer(whole_worker_to_json(member, state, name, now, cache, drawing, last))


def _tell(edge: GatewayServices, caller: Caller, request: Request, worker: str, action: Action) -> Response:
    log, name = log_of(edge), f"fleet.{action.value}"
    with whole_fleet(edge) as reading:
        try:
            member = meant_member(worker, reading.view.fleet, reading.names)
        except (WorkerNotFound, InvalidRequest) as error:
            log.note_refusal(act_of(caller, request, name, worker), error)
            raise
        worker_id = member.presence.worker_id
        last = () if action is Action.UNCORDON else last_worker_of(reading, worker_id, _owed(edge))
        act = act_of(caller, request, name, worker_id)
        now_ms = edge.core().plane.clock.now_ms()
        command = log.elsewhere(act, lambda: tell_worker(reading, member, action, now_ms=now_ms))
    return json_answer({**_command_document(command), "last_of": [vars(one) for one in last]}, 202)


def _owed(edge: GatewayServices) -> Callable[[Collection[PoolName]], Mapping[PoolName, int]]:
    return partial(owed_jobs, edge.core().plane.store)


def _command_document(command: Command) -> dict[str, Any]:
    return {
        "object": "fleet_command",
        "id": command.command_id,
        "worker_id": command.target,
        "action": command.action.value,
        "expires_at": command.expires_at,
    }
