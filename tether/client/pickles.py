"""What a pickle of a handle holds: its job's id and keys, and no client."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Self

from tether.errors import ClientClosed


class NoClient:
    """Stands in a handle that came out of a pickle for the client that it had: nothing can be asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ClientClosed(
            "this handle came out of a pickle, which holds its job's id and no client: go on with "
            "tether.job(handle.job_id)"
        )

    def __repr__(self) -> str:
        return "no client"


NO_CLIENT = NoClient()

_CLIENT_FIELDS = ("backend", "calls")
"""Fields of a handle that belong to its client."""


class WithoutClient:
    """A handle, a frozen dataclass, that is pickled without its client. A copy of it is itself."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _CLIENT_FIELDS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        names = [each.name for each in fields(self)]  # type: ignore[arg-type]  # each is a dataclass
        self.__dict__.update({name: state.get(name, NO_CLIENT) for name in names})

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self
