import io
import json
import logging
import re
import threading

import pytest
import structlog
from dramatiq.logging import get_logger
from opentelemetry import context as otel_context
from opentelemetry import trace

from tether.errors import ConfigError
from tether.telemetry.logs import configure_logs, log_context
from tether.telemetry.trace_context import read_trace_context

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def without_the_handlers_of_pytest() -> None:
    # They come after the fixtures, and do not stand what ours must.
    logging.getLogger().handlers[:] = []


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_of_structlog_of_the_standard_library_and_of_dramatiq_have_one_form(stream):
    configure_logs(form="json", level="info", stream=stream, process="worker")
    structlog.get_logger("ours").info("a %s", "b", size=3)
    logging.getLogger("theirs").info("a %s", "b", extra={"size": 3})
    get_logger("dramatiq.worker", "WorkerThread").warning("a %s", "b", extra={"size": 3})
    found = lines(stream)
    for line in found:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    same = {"process": "worker", "event": "a b", "size": 3}
    assert found == [
        {"logger": "ours", "level": "info", **same},
        {"logger": "theirs", "level": "info", **same},
        {"logger": "dramatiq.worker.WorkerThread", "level": "warning", **same},
    ]


def test_the_time_is_the_record_s_in_utc(stream):
    configure_logs(form="json", stream=stream)
    record = logging.makeLogRecord({"name": "x", "msg": "m", "levelno": 30, "created": 1_700_000_000.0625})
    logging.getLogger().handle(record)
    assert lines(stream)[0]["timestamp"] == "2023-11-14T22:13:20.062Z"


def test_configuring_twice_replaces_the_first_handler(stream):
    first = io.StringIO()
    configure_logs(form="json", stream=first)
    configure_logs(form="json", stream=stream)
    logging.getLogger("x").warning("once")
    structlog.get_logger("x").warning("once")
    assert first.getvalue() == ""
    assert [line["event"] for line in lines(stream)] == ["once", "once"]


def test_handlers_of_others_stay(stream):
    theirs = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(theirs)
    configure_logs(stream=stream)
    assert theirs in logging.getLogger().handlers


def test_lines_below_the_level_are_left_out(stream):
    configure_logs(form="json", level="WARNING", stream=stream)
    logging.getLogger("x").info("no")
    structlog.get_logger("x").info("no")
    structlog.get_logger("x").warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


@pytest.mark.parametrize("wrong", [{"form": "xml"}, {"level": "loud"}, {"level": 10}])
def test_a_form_or_level_that_is_none_is_refused(wrong):
    without_the_handlers_of_pytest()
    with pytest.raises(ConfigError, match="choose"):
        configure_logs(**wrong)
    assert logging.getLogger().handlers == []


def test_ids_stand_in_every_line_inside_their_context_only(stream):
    configure_logs(form="json", stream=stream)
    log = logging.getLogger("x")
    with log_context(job_id="j", correlation_id=None):
        with log_context(message_id="m", job_id="inner"):
            log.warning("inner")
        log.warning("outer")
    log.warning("outside")
    ids = [{k: v for k, v in line.items() if k.endswith("_id")} for line in lines(stream)]
    assert ids == [{"message_id": "m", "job_id": "inner"}, {"job_id": "j"}, {}]


def test_ids_of_one_thread_do_not_stand_in_another_s_lines(stream):
    configure_logs(form="json", stream=stream)
    with log_context(job_id="j"):
        thread = threading.Thread(target=logging.getLogger("x").warning, args=("elsewhere",))
        thread.start()
        thread.join()
    assert "job_id" not in lines(stream)[0]


def test_trace_ids_are_those_of_the_current_span_unless_given(stream):
    configure_logs(form="json", stream=stream)
    span = trace.NonRecordingSpan(read_trace_context(TRACEPARENT))
    token = otel_context.attach(trace.set_span_in_context(span))
    logging.getLogger("x").warning("in the span")
    with log_context(trace_id="given"):
        logging.getLogger("x").warning("given")
    otel_context.detach(token)
    logging.getLogger("x").warning("outside")
    first, second, third = lines(stream)
    assert first["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert first["span_id"] == "b7ad6b7169203331"
    assert second["trace_id"] == "given"
    assert "trace_id" not in third


def test_variables_bound_by_structlog_s_own_means_stand_in_its_lines(stream):
    configure_logs(form="json", stream=stream)
    with structlog.contextvars.bound_contextvars(request="r"):
        structlog.get_logger("x").warning("m")
    assert lines(stream)[0]["request"] == "r"


def raise_and_log(log) -> None:
    try:
        try:
            raise KeyError("redis://u:hunter2@h/0")
        except KeyError as cause:
            raise ValueError("bad\nvalue") from cause
    except ValueError:
        log.exception("failed")


@pytest.mark.parametrize("get", [logging.getLogger, structlog.get_logger])
def test_an_exception_is_a_field_of_its_own_in_json_without_credentials(stream, get):
    configure_logs(form="json", stream=stream)
    raise_and_log(get("x"))
    (line,) = lines(stream)
    assert line["level"] == "error"
    assert (line["exception"]["type"], line["exception"]["message"]) == ("ValueError", "bad\nvalue")
    assert "redis://u:***@h/0" in line["exception"]["traceback"]
    assert "raise_and_log" in line["exception"]["traceback"]
    assert "hunter2" not in stream.getvalue()


@pytest.mark.parametrize("get", [logging.getLogger, structlog.get_logger])
def test_a_traceback_stands_indented_below_the_line_for_people(stream, get):
    configure_logs(form="human", stream=stream)
    raise_and_log(get("x"))
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("error    x: failed")
    assert rest
    assert all(line.startswith("    ") for line in rest)
    assert "hunter2" not in stream.getvalue()


def test_the_form_for_people_is_one_line(stream):
    configure_logs(form="human", stream=stream, process="gateway")
    with log_context(job_id="j"):
        logging.getLogger("x").warning("took %d s", 3, extra={"sizes": [1, 2]})
    when, _, rest = stream.getvalue().partition(" ")
    assert when.endswith("Z")
    assert rest == "warning  gateway x: took 3 s job_id=j sizes=[1, 2]\n"


def test_a_value_can_neither_forge_a_line_nor_steer_a_terminal(stream):
    configure_logs(form="human", stream=stream)
    logging.getLogger("x").warning("a\nb\x1b[31m\u2028c\x9bd", extra={"k\n": "v\r\n"})
    assert len(stream.getvalue().splitlines()) == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", stream.getvalue())


def test_an_exception_outside_of_any_handler_is_no_error(stream):
    configure_logs(form="json", stream=stream)
    logging.getLogger("x").exception("none")
    structlog.get_logger("x").exception("none")
    logging.getLogger("x").error("given", exc_info=ValueError("v"))
    assert ["exception" in line for line in lines(stream)] == [False, False, True]


def test_a_stack_is_a_field_when_asked_for(stream):
    configure_logs(form="json", stream=stream)
    logging.getLogger("x").warning("m", stack_info=True)
    structlog.get_logger("x").warning("m", stack_info=True)
    assert all("test_a_stack_is_a_field" in line["stack"] for line in lines(stream))


def test_fields_named_like_those_of_every_line_do_not_replace_them(stream):
    configure_logs(form="json", stream=stream)
    logging.getLogger("x").warning("m", extra={"level": 3, "event": "e", "exception": 1})
    structlog.get_logger("x").warning("m", level=3, logger="l", timestamp=0)
    first, second = lines(stream)
    assert (first["level"], first["event"], first["level_"], first["event_"]) == ("warning", "m", 3, "e")
    assert (first["exception_"], "exception" in first) == (1, False)
    assert (second["logger"], second["logger_"], second["timestamp_"]) == ("x", "l", 0)


class _Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


def _circle() -> list:
    circle: list = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize("form", ["human", "json"])
@pytest.mark.parametrize(
    "value",
    [
        b"\xff\x00",
        bytearray(b"x"),
        memoryview(b"x"),
        {1: {2: b"\xfe"}, (3, 4): {5}, None: ...},
        "\ud800",
        float("nan"),
        float("-inf"),
        10**5000,
        _Hostile(),
        {_Hostile(): _Hostile()},
        _circle(),
        object(),
        ValueError("x"),
        "x" * 100_000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_can_be_logged(form, value):
    without_the_handlers_of_pytest()
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    configure_logs(form=form, stream=stream)
    logging.getLogger("x").warning("m", extra={"value": value})
    structlog.get_logger("x").warning("m", value=value)
    stream.flush()
    written = raw.getvalue().splitlines()
    assert len(written) == 2
    assert all(len(line) < 20_000 for line in written)
    assert b"cannot be written" not in raw.getvalue()
    if form == "json":
        assert all("value" in json.loads(line, parse_constant=pytest.fail) for line in written)


def test_a_line_whose_arguments_do_not_fit_is_written_without_them(stream, capsys):
    without_the_handlers_of_pytest()
    configure_logs(form="json", stream=stream)
    logging.getLogger("x").warning("took %d s", "redis://u:hunter2@h")
    (line,) = lines(stream)
    assert "TypeError" in line["event"]
    assert "took %d s" in line["event"]
    logging.getLogger("x").warning("%s", _Hostile())
    assert len(lines(stream)) == 2
    assert "hunter2" not in stream.getvalue() + capsys.readouterr().err


def test_a_stream_that_fails_does_not_put_secrets_on_the_error_stream(capsys):
    stream = io.StringIO()
    configure_logs(form="json", stream=stream)
    stream.close()
    logging.getLogger("x").warning("password=%s", "hunter2")
    told = capsys.readouterr().err
    assert "a log line of x was lost (ValueError)" in told
    assert "hunter2" not in told


def test_the_error_stream_is_where_lines_go_if_nothing_else_is_said(capsys):
    configure_logs()
    logging.getLogger("x").warning("m")
    assert "x: m" in capsys.readouterr().err
