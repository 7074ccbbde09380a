"""The models that are configured, each version by its digest, and the names of the pools that serve them."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, Self

from tether.config.settings import ModelSettings, Settings
from tether.errors import InvalidName, UnknownModel
from tether.ids import PoolName
from tether.jobs import canonical_json
from tether.requests.needs import PLACE_NAME

MAX_POOL_NAME_BYTES = 128
"""Bytes of a pool's name."""

_DIGEST_DIGITS = 8
_PLACE = re.compile(PLACE_NAME.removesuffix("$") + r"\Z")
_NOT_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One version of a model, as it is loaded.

    Attributes:
      name: The name that clients use.
      version: Its version.
      digest: SHA-256, in hexadecimal, of what distinguishes it from others.
      context: Context length: maximum number of tokens of prompt and output together.
      quantize: ``none``, ``int8`` or ``nf4``.
      gpu_class: The only GPU class that serves it; empty is any.
      region: The only region that serves it; empty is any.
      adapters: Names of its adapters.
    """

    name: str
    version: str
    digest: str
    context: int
    quantize: str = "none"
    gpu_class: str = ""
    region: str = ""
    adapters: tuple[str, ...] = ()

    @classmethod
    def from_settings(cls, model: ModelSettings) -> Self:
        """The version that a ``[[models]]`` table describes. Its digest is that of the canonical JSON of
        name, version, source, quantization and context."""
        described = {
            "name": model.name,
            "version": model.version,
            "source": model.source,
            "quantize": model.quantize,
            "context": model.context,
        }
        return cls(
            name=model.name,
            version=model.version,
            digest=hashlib.sha256(canonical_json(described)).hexdigest(),
            context=model.context,
            quantize=model.quantize,
            gpu_class=model.gpu_class,
            region=model.region,
            adapters=model.adapter_names,
        )

    def may_run_on(self, gpu_class: str, region: str) -> bool:
        """Whether workers of this class and region may serve it."""
        return self.gpu_class in ("", gpu_class) and self.region in ("", region)


def check_place_name(name: object, what: str) -> str:
    """Return ``name`` if a region or a GPU class may have it.

    Raises:
      InvalidName: It is not text of the allowed form. ``what`` says in the message what it names.
    """
    if not isinstance(name, str) or _PLACE.match(name) is None:
        shown = repr(name)[:80]
        raise InvalidName(f"{what} {shown} is not allowed: use a to z, 0 to 9 and '-', at most 32 characters")
    return name


class HasDigest(Protocol):
    """A model's name and digest: all that the name of a pool says of it."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...


def pool_name(gpu_class: str, region: str, model: HasDigest) -> PoolName:
    """``gpu.<class>.<region>.<slug>-<8 hexadecimal digits of the digest>``, at most 128 bytes.

    It is made here and compared; nothing takes it apart but :func:`is_pool_of` and
    :func:`region_of_pool`.

    Raises:
      InvalidName: The class or the region is not of the allowed form.
    """
    check_place_name(gpu_class, "GPU class")
    check_place_name(region, "region")
    head = f"gpu.{gpu_class}.{region}."
    tail = f"-{model.digest[:_DIGEST_DIGITS]}"
    slug = _NOT_SLUG.sub("-", model.name.lower()).strip("-") or "model"
    return PoolName(head + slug[: MAX_POOL_NAME_BYTES - len(head) - len(tail)].rstrip("-") + tail)


def is_pool_of(name: str, model: HasDigest) -> bool:
    """Whether a pool, whatever its class and region, is one of this version. Versions with the same first
    digits of their digests are taken for one, as in the names of pools."""
    return name.endswith(f"-{model.digest[:_DIGEST_DIGITS]}")


def region_of_pool(name: str) -> str | None:
    """The region in a pool's name, of which nothing else may be read; None where it is no pool's name."""
    parts = name.split(".")
    return parts[2] if len(parts) == 4 and parts[0] == "gpu" and _PLACE.match(parts[2]) else None


class Registry:
    """All models that are configured."""

    def __init__(self, models: Iterable[ModelVersion]) -> None:
        self.models = tuple(models)
        self._by_name: dict[str, ModelVersion] = {}
        for model in self.models:
            self._by_name.setdefault(model.name, model)
        self._by_version = {f"{model.name}@{model.version}": model for model in reversed(self.models)}

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        return cls(ModelVersion.from_settings(model) for model in settings.models)

    def find(self, name: str) -> ModelVersion:
        """The model of this name; ``name@version`` is one version of it. Without a version it is the one
        that is configured first.

        Raises:
          UnknownModel: There is none.
        """
        if name in self._by_name:
            return self._by_name[name]
        if name in self._by_version:
            return self._by_version[name]
        known = sorted(self._by_name)
        near = difflib.get_close_matches(name[:200], known, n=1, cutoff=0.5)
        if near:
            meant = f"did you mean {near[0]!r}?"
        elif known:
            meant = f"available: {', '.join(known[:10])}"
        else:
            meant = "no models are configured; add a [[models]] table"
        raise UnknownModel(f"there is no model {name[:200]!r}; {meant}")
