"""Streams of server-sent events, read over sockets of their own."""

import http.client
import json
import socket

from support.waiting import PATIENCE_SECONDS


class EventStream:
    """A reader of server-sent events over a socket of its own."""

    def __init__(self, gateway, job_id, *, last_id=None, key=None, query=""):
        self._socket = socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_SECONDS)
        resume = f"Last-Event-ID: {last_id}\r\n" if last_id is not None else ""
        self._socket.sendall(
            f"GET /v1/jobs/{job_id}/stream{query} HTTP/1.1\r\nHost: x\r\n{resume}"
            f"Authorization: Bearer {key or gateway.key()}\r\n\r\n".encode()
        )
        self._answer = http.client.HTTPResponse(self._socket, method="GET")
        self._answer.begin()
        self.status = self._answer.status

    def events(self):
        """Events until the end, as (id, kind, data)."""
        fields = {}
        while line := self._answer.readline().decode():
            name, _, value = line.rstrip("\n").partition(": ")
            if line == "\n" and "event" in fields:
                yield fields.get("id"), fields["event"], json.loads(fields["data"])
                fields = {}
            elif name:
                fields[name] = value

    def close(self):
        self._socket.close()


def texts(events):
    return [text for _, kind, data in events if kind == "delta" for text in data["texts"]]
