"""The JSON of dead letters that gateway and clients speak, apart since who submits a job needs none of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tether.codec import value_from_json, value_to_json
from tether.dead_letters import DeadLetter, LetterPage, LetterRetries, LetterRetry


def letter_to_json(letter: DeadLetter) -> dict[str, Any]:
    return {"object": "dead_letter", **value_to_json(letter)}


def letter_page_to_json(page: LetterPage) -> dict[str, Any]:
    data = list(map(letter_to_json, page.letters))
    return {"object": "list", "data": data, "next_cursor": page.next_cursor}


def letter_page_from_json(value: Mapping[str, Any]) -> LetterPage:
    letters = tuple(value_from_json(DeadLetter, each) for each in value["data"])
    return LetterPage(letters, value["next_cursor"])


def retries_to_json(batch: LetterRetries) -> dict[str, Any]:
    data = list(map(value_to_json, batch.retries))
    return {"object": "list", "data": data, "next_cursor": batch.next_cursor}


def retries_from_json(value: Mapping[str, Any]) -> LetterRetries:
    retries = tuple(value_from_json(LetterRetry, each) for each in value["data"])
    return LetterRetries(retries, value["next_cursor"])
