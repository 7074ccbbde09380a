"""A cache manifest as JSON, in announcements and in answers that hold all of it."""

from __future__ import annotations

import re
from typing import Any

from tether.discovery.field_checks import count, exactly, flag, listed, one_of, text
from tether.discovery.presence import Artifact, ArtifactKind, ArtifactState, CacheManifest

_FIELD = "cacheManifest"
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_MANIFEST_FIELDS = frozenset({"digest", "complete", "artifacts"})
_ARTIFACT_FIELDS = frozenset({"digest", "kind", "state", "bytes", "pinned", "lastUse"})


def manifest_to_wire(manifest: CacheManifest) -> dict[str, Any]:
    """What stands in JSON for a manifest."""
    return {
        "digest": manifest.digest,
        "complete": manifest.is_complete,
        "artifacts": [
            {
                "digest": artifact.digest,
                "kind": artifact.kind,
                "state": artifact.state,
                "bytes": artifact.size,
                "pinned": artifact.pinned,
                "lastUse": artifact.last_use,
            }
            for artifact in manifest.artifacts
        ],
    }


def manifest_from_wire(value: object, most: int) -> CacheManifest:
    """The manifest that stands in JSON.

    Args:
      most: Artifacts that it may have.

    Raises:
      WrongField: It is none.
    """
    item = exactly(value, _MANIFEST_FIELDS, _FIELD)
    return CacheManifest(
        artifacts=tuple(_artifact(one) for one in listed(item["artifacts"], most, _FIELD)),
        digest=text(item["digest"], _DIGEST, _FIELD),
        is_complete=flag(item["complete"], _FIELD),
    )


def _artifact(value: object) -> Artifact:
    item = exactly(value, _ARTIFACT_FIELDS, _FIELD)
    return Artifact(
        digest=text(item["digest"], _DIGEST, _FIELD),
        kind=one_of(ArtifactKind, item["kind"], _FIELD),
        state=one_of(ArtifactState, item["state"], _FIELD),
        size=count(item["bytes"], _FIELD),
        pinned=flag(item["pinned"], _FIELD),
        last_use=count(item["lastUse"], _FIELD),
    )
