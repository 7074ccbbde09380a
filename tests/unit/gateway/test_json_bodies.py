"""JSON in bodies: read alike whether by the parser in C or value by value, or refused with what is wrong."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tether.errors import MalformedBody, RequestTooLarge
from tether.gateway import json_bodies
from tether.gateway.json_bodies import MAX_AT_ONCE, MAX_DIGITS, MAX_VALUES, parse_by_values, parse_json

BROKEN = {
    "nothing": (b"", "empty"),
    "white space": (b" \n", "empty"),
    "bad UTF-8": (b'{"a": "\xff"}', "byte 7"),
    "no JSON": (b"model=m", "line 1, column 1"),
    "cut off": (b'{"a": ', "column 7"),
    "cut off in a list": (b'{"a": [1', "column 9"),
    "a list": (b"[]", "list"),
    "null": (b"null", "NoneType"),
    "text": (b'"{}"', "str"),
    "not a number": (b'{"a": NaN}', "NaN"),
    "no end": (b'{"a": -Infinity}', "-Infinity"),
    "a raw NUL": (b'{"a": "\0"}', "control character"),
    "two documents": (b"{}{}", "Extra data"),
    "a comma too many": (b'{"a": 1,}', "property name"),
    "no colon": (b'{"a" 1}', "':' delimiter"),
    "no comma": (b'{"a": [1 2]}', "',' delimiter"),
    "a field twice": (b'{"a": 1, "a": 2}', "duplicate field 'a'"),
    "a field twice within": (b'{"a": [{"b": 1, "c": 3, "b": 2}]}', "duplicate field 'b'"),
    "too deep": (b"[" * 90_000, "nested too deep"),
    "too long a number": (b'{"a": ' + b"9" * 5_000 + b"}", "a number that is too long"),
    "too long a fraction": (b'{"a": 0.' + b"9" * MAX_DIGITS + b"}", "a number that is too long"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "UTF-8"),
}


@pytest.fixture(params=["at once", "by values"])
def _parser(request, monkeypatch):
    """Both ways of parsing, whatever the body is."""
    monkeypatch.setattr(json_bodies, "MAX_AT_ONCE", 10**9 if request.param == "at once" else -1)


@pytest.mark.usefixtures("_parser")
@pytest.mark.parametrize("case", BROKEN)
def test_a_body_that_is_no_json_object_is_refused_with_what_is_wrong(case):
    body, words = BROKEN[case]
    with pytest.raises(MalformedBody, match=words):
        parse_json(body)


@pytest.mark.usefixtures("_parser")
def test_of_many_fields_the_one_that_stands_twice_is_found():
    body = json.dumps({f"k{n}": 1 for n in range(50_000)})[:-1] + ', "k49999": 2}'
    with pytest.raises(MalformedBody, match="duplicate field 'k49999'"):
        parse_json(body.encode())


@given(st.binary(max_size=200))
def test_no_body_makes_the_reader_fail(body):
    try:
        found = parse_json(body)
    except MalformedBody as refusal:
        found = {"words": str(refusal)[:300]}
    assert isinstance(found, dict)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)
LAYOUTS = st.sampled_from([None, 0, 2, "\t", " \r\n"])


def outcome(parse, text):
    """What is read, or what is wrong with it."""
    try:
        return parse(text)
    except json.JSONDecodeError as error:
        return error.msg.partition(":")[0]
    except MalformedBody as refusal:
        return str(refusal)


@given(VALUES, LAYOUTS, st.booleans())
def test_what_is_read_by_values_is_what_the_parser_in_c_reads(value, layout, is_ascii):
    text = json.dumps(value, indent=layout, ensure_ascii=is_ascii)
    assert outcome(parse_by_values, text) == outcome(json_bodies._DECODER.decode, text)
    assert parse_by_values(f" {text}\n") == value or len(text) > MAX_DIGITS


@given(VALUES, st.integers(0, 200), st.sampled_from(list('{}[]",:0-.eE \\u/nt\x00')), st.booleans())
def test_what_is_broken_is_refused_by_both_in_the_same_words(value, place, character, replaces):
    text = json.dumps(value)
    broken = text[:place] + character + text[place + replaces :]
    assert outcome(parse_by_values, broken) == outcome(json_bodies._DECODER.decode, broken)


@pytest.mark.parametrize("element", ["[]", "{}", "1", "1.5", '""', "null", '{"a":1}', "[[0]]"])
def test_more_values_than_a_body_may_have_are_refused_wherever_they_are(element):
    body = f'{{"jobs":[{",".join([element] * MAX_VALUES)}]}}'.encode()
    with pytest.raises(RequestTooLarge, match=str(MAX_VALUES)):
        parse_json(body)


def test_what_stands_in_texts_does_not_count():
    text = '[{,":' * MAX_VALUES
    assert parse_json(json.dumps({"prompt": text}).encode()) == {"prompt": text}


def test_a_text_without_an_end_is_read_once():
    with pytest.raises(MalformedBody, match="delimiter"):
        parse_json(b'{"a":' + b'"\\"' * 500_000)


def test_others_have_their_turn_while_many_values_are_read():
    """Each value is a step of Python's, at which another thread can run: the parser in C has none."""
    seen = []

    class Text(str):
        def __getitem__(self, place):
            seen.append(place)
            return super().__getitem__(place)

    count = MAX_AT_ONCE + 1
    assert parse_by_values(Text(f"[{','.join(['[]'] * count)}]")) == [[]] * count
    assert len(seen) > count
