"""A client that reads a job's stream to its end, whatever happens meanwhile."""

import threading

from support.waiting import PATIENCE_SECONDS


class StreamReader:
    """Follows one job. It owns the thread ``stream-reader``, which ends with the stream or its silence."""

    def __init__(self, handle):
        self.events = []
        self.error = None
        self._is_over = False
        self._handle = handle
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="stream-reader", daemon=True)
        self._thread.start()

    def _read(self):
        try:
            for event in self._handle.events(timeout=PATIENCE_SECONDS):
                with self._news:
                    self.events.append(event)
                    self._news.notify_all()
        except Exception as error:
            self.error = error
        finally:
            with self._news:
                self._is_over = True
                self._news.notify_all()

    @property
    def kinds(self):
        """The kinds of the events, without deltas."""
        return [event.kind for event in self.events if event.kind != "delta"]

    @property
    def texts(self):
        """The tokens, of which none may be missing or there twice."""
        found = []
        for event in list(self.events):
            assert event.kind != "restarted", "the null engine's streams are never begun anew"
            if event.kind == "delta":
                assert event.offset == len(found) + len(event.pieces), "a token is missing, or there twice"
                found += [piece.text for piece in event.pieces]
        return found

    def wait_for_tokens(self, count):
        self._wait_for(lambda: len(self.texts) >= count, f"{count} tokens")

    def wait_for_event(self, kind):
        self._wait_for(lambda: kind in self.kinds, f"event {kind}")

    def _wait_for(self, condition, what):
        with self._news:
            self._news.wait_for(lambda: self._is_over or condition(), PATIENCE_SECONDS)
            assert condition(), f"no {what} in {self.events}, {self.error!r}"

    def join(self):
        """Wait for the last event."""
        self._thread.join(2 * PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "the stream has no end"
        if self.error is not None:
            raise self.error
