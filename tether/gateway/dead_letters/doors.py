"""Who asks for dead letters: a tenant for its own, or an operator for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from starlette.requests import Request

from tether.core.direct.dead_letters import DirectLetterPort
from tether.gateway.acts import act_of, log_of
from tether.gateway.keys.api_keys import Scope
from tether.gateway.keys.key_ring import Caller
from tether.gateway.services import GatewayServices
from tether.ids import TenantId

_Answer = TypeVar("_Answer")


class LetterDoor(Protocol):
    """What differs between the two.

    Attributes:
      reading, changing: What the caller's key must be good for.
    """

    @property
    def reading(self) -> tuple[Scope, ...]: ...

    @property
    def changing(self) -> tuple[Scope, ...]: ...

    def port(self, edge: GatewayServices, caller: Caller) -> DirectLetterPort:
        """The letters that the caller may see."""

    def party(self, caller: Caller) -> TenantId:
        """What the caller is among those that wait for lists."""

    def change(
        self,
        edge: GatewayServices,
        caller: Caller,
        request: Request,
        action: str,
        details: dict[str, Any],
        function: Callable[[], _Answer],
        *,
        retry_token: str | None = None,
    ) -> _Answer:
        """Do what changes letters. Blocks.

        Args:
          details: With what it is done; a filter's fields by their names.
          retry_token: Of the letter that it concerns; None where it may concern several.
        """


class TenantDoor:
    """A tenant sees and changes its own letters."""

    reading = (Scope.READ,)
    changing = (Scope.SUBMIT,)

    def port(self, edge: GatewayServices, caller: Caller) -> DirectLetterPort:
        return edge.backend(caller).letter_port

    def party(self, caller: Caller) -> TenantId:
        return caller.tenant_id

    def change(
        self,
        edge: GatewayServices,
        caller: Caller,
        request: Request,
        action: str,
        details: dict[str, Any],
        function: Callable[[], _Answer],
        *,
        retry_token: str | None = None,
    ) -> _Answer:
        return function()


class OperatorDoor:
    """An operator sees and changes all letters; each change is in the audit log."""

    reading = (Scope.OPERATOR,)
    changing = (Scope.OPERATOR,)

    def port(self, edge: GatewayServices, caller: Caller) -> DirectLetterPort:
        return edge.core().backend.every_letter_port

    def party(self, caller: Caller) -> TenantId:
        # A key of its own is its own party among those that wait for lists.
        return TenantId(caller.key_id)

    def change(
        self,
        edge: GatewayServices,
        caller: Caller,
        request: Request,
        action: str,
        details: dict[str, Any],
        function: Callable[[], _Answer],
        *,
        retry_token: str | None = None,
    ) -> _Answer:
        target, tenant = "dead letters", details.get("tenant")
        owner = None if retry_token is None else self.port(edge, caller).owner_of(retry_token)
        if owner is not None:
            target, tenant = owner
        tenant_id = None if tenant is None else TenantId(tenant)
        act = act_of(caller, request, action, target, tenant_id, **details)
        return log_of(edge).elsewhere(act, function)
