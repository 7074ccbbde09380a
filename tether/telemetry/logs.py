"""Structured logs: for people or as JSON, one line each, with the ids of what the line is about."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal, TextIO

import structlog
from opentelemetry import trace
from structlog.types import EventDict, Processor, WrappedLogger

from tether.errors import ConfigError
from tether.telemetry.redaction import plain_exception, plain_fields, plain_text

LogForm = Literal["human", "json"]
LOG_FORMS: tuple[LogForm, ...] = ("human", "json")
LOG_LEVELS = ("debug", "info", "warning", "error", "critical")

_OWN_FIELDS = frozenset({"timestamp", "level", "logger", "process", "event", "exception", "stack"})
_NO_IDS: Mapping[str, object] = MappingProxyType({})
_IDS: ContextVar[Mapping[str, object]] = ContextVar("tether_log_ids", default=_NO_IDS)
_RECORD_ATTRIBUTES = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_CONTROL_CHARACTERS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


@contextlib.contextmanager
def log_context(**ids: object) -> Iterator[None]:
    """Give every line that is logged inside, on this thread or task, these fields; None is left out.

    Used for ``job_id``, ``correlation_id``, ``message_id``, ``actor``, ``queue``. ``trace_id`` and
    ``span_id`` are those of OpenTelemetry's current span unless they are given here.
    """
    token = bind_ids({name: value for name, value in ids.items() if value is not None})
    try:
        yield
    finally:
        unbind_ids(token)


def bind_ids(ids: Mapping[str, object]) -> Token[Mapping[str, object]]:
    """Like :func:`log_context`, for code whose end is elsewhere; :func:`unbind_ids` undoes it."""
    return _IDS.set({**_IDS.get(), **ids})


def unbind_ids(token: Token[Mapping[str, object]]) -> None:
    """Undo one :func:`bind_ids`, on the same thread or task."""
    _IDS.reset(token)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger of ours by name. Where nobody has configured logs it is the standard library's: a program that
    uses Tether as a library keeps its standard output to itself."""
    logger: structlog.stdlib.BoundLogger = structlog.wrap_logger(
        logging.getLogger(name), wrapper_class=structlog.stdlib.BoundLogger
    )
    return logger


def configure_logs(
    *,
    form: LogForm = "human",
    level: str = "info",
    stream: TextIO | None = None,
    process: str | None = None,
) -> None:
    """Send what the standard library's loggers and structlog's log to ``stream``, all in one form.

    For programs, not for libraries: it sets the root logger's level and handler, and structlog's
    configuration. A second call replaces the first one's handler. Handlers of others stay as they are.

    Args:
      form: ``human`` (one line, a traceback below it) or ``json`` (one object a line).
      level: ``debug``, ``info``, ``warning``, ``error`` or ``critical``, in any case.
      stream: Where to; the standard error stream where not given.
      process: What this process is (``worker``, ``gateway``), as a field of every line.

    Raises:
      ConfigError: There is no such form or level.
    """
    if form not in LOG_FORMS:
        raise ConfigError(f"unknown log format {form!r}: choose human or json")
    if not isinstance(level, str) or level.lower() not in LOG_LEVELS:
        raise ConfigError(f"unknown log level {level!r}: choose one of {', '.join(LOG_LEVELS)}")
    handler = _TetherHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(_LineFormatter(form, process, getattr(handler.stream, "encoding", None)))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    # What it says of itself at each start tells an operator nothing; its warnings do.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    root = logging.getLogger()
    earlier = [other for other in root.handlers if isinstance(other, _TetherHandler)]
    root.addHandler(handler)
    for other in earlier:
        root.removeHandler(other)
        other.close()
    root.setLevel(level.upper())


class _TetherHandler(logging.StreamHandler[TextIO]):
    """The handler of :func:`configure_logs`, known by its class."""

    def handleError(self, record: logging.LogRecord) -> None:
        # Logging's own answer prints the record's arguments, secrets among them.
        kind = sys.exc_info()[0]
        with contextlib.suppress(Exception):
            name = "error" if kind is None else kind.__name__
            sys.stderr.write(f"tether: a log line of {record.name} was lost ({name})\n")


class _LineFormatter(structlog.stdlib.ProcessorFormatter):
    """Writes any record as one line; one that cannot be written is replaced by a line that says so."""

    def __init__(self, form: LogForm, process: str | None, encoding: str | None) -> None:
        render: Processor = _render_json if form == "json" else _HumanForm(encoding or "utf-8")
        super().__init__(processors=[_Fields(process), render], foreign_pre_chain=[_add_extra])

    def format(self, record: logging.LogRecord) -> str:
        try:
            return super().format(record)
        except Exception as error:
            template = plain_text(record.msg)
            reason = f"this line cannot be written ({type(error).__name__}); its template is {template}"
            return super().format(
                logging.LogRecord(
                    record.name, record.levelno, record.pathname, record.lineno, reason, (), None
                )
            )


def _add_extra(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Take over what a logger of the standard library was given as ``extra``."""
    for name, value in event["_record"].__dict__.items():
        if name not in _RECORD_ATTRIBUTES:
            event[_free_name(name)] = value
    return event


def _free_name(name: str) -> str:
    """The name itself, or with ``_`` behind it where it is that of a field which every line has."""
    return f"{name}_" if name in _OWN_FIELDS else name


class _Fields:
    """Makes of a record the fields of its line, in their order, plain and without secrets."""

    def __init__(self, process: str | None) -> None:
        self._process = process

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        record: logging.LogRecord = event.pop("_record")
        ours = event.pop("_from_structlog")
        error = _error_of(event.pop("exc_info", None))
        stack = event.pop("stack_info", None)
        when = datetime.fromtimestamp(record.created, UTC)
        text = event.pop("event", "")
        fields: dict[str, Any] = {
            "timestamp": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if self._process is not None:
            fields["process"] = self._process
        fields["event"] = plain_text(text)
        own = {_free_name(name): value for name, value in event.items()} if ours else event
        fields.update(plain_fields({**_trace_ids(), **_IDS.get(), **own}))
        if error is not None:
            fields["exception"] = plain_exception(error)
        if stack:
            fields["stack"] = plain_text(
                stack if isinstance(stack, str) else "".join(traceback.format_stack())
            )
        return fields


def _trace_ids() -> Mapping[str, object]:
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return _NO_IDS
    return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}


def _error_of(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        error = exc_info[1] if len(exc_info) > 1 else None
    else:
        error = sys.exc_info()[1] if exc_info else None
    return error if isinstance(error, BaseException) else None


def _render_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    # In ASCII: such a line can be written to any stream.
    return json.dumps(event)


class _HumanForm:
    """One line for people: time, level, process, logger, text, then the fields; a traceback below."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        fields = dict(event)
        blocks = [fields.pop("stack", ""), fields.pop("exception", {}).get("traceback", "")]
        head = [
            fields.pop("timestamp"),
            f"{fields.pop('level'):<8}",
            *([fields.pop("process")] if "process" in fields else []),
            f"{fields.pop('logger')}:",
            fields.pop("event"),
            *(f"{name}={value}" for name, value in fields.items()),
        ]
        # A line break or an escape sequence in a value could forge a line or steer a terminal.
        lines = [" ".join(head).translate(_CONTROL_CHARACTERS)]
        for block in blocks:
            lines += [f"    {line.translate(_CONTROL_CHARACTERS)}" for line in block.splitlines()]
        return "\n".join(lines).encode(self._encoding, "backslashreplace").decode(self._encoding)
