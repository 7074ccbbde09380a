"""Text comes token by token, whole characters only, and ends before a stop text."""

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tether_workers import demo_model
from tether_workers.engines.transformers.detokenizer import Detokenizer

TOKENIZER = Tokenizer.from_file(str(demo_model.folder() / "tokenizer.json"))


def tokens_of(text):
    return TOKENIZER.encode(text, add_special_tokens=False).ids


def run(tokens, stop=(), skip=0):
    """Pieces of all tokens after the first ``skip``, and whether a stop text ended them."""
    stream = Detokenizer(TOKENIZER, tokens_of("Once"), stop)
    stream.skip(tokens[:skip])
    given_out = []
    for token in tokens[skip:]:
        pieces, is_stopped = stream.add(token)
        given_out += pieces
        if is_stopped:
            return given_out, True
    return given_out + stream.flush(), False


def text_of(pieces):
    return "".join(piece.text for piece in pieces)


@given(st.text())
def test_pieces_together_are_the_text(text):
    tokens = tokens_of(text)
    pieces, _ = run(tokens)
    assert [piece.token_id for piece in pieces] == tokens
    # What never becomes a whole character has no text.
    assert TOKENIZER.decode(tokens).startswith(text_of(pieces).rstrip("\ufffd"))


@given(st.text(alphabet="abé€😀 \n", min_size=1), st.integers(0, 40))
def test_going_on_gives_the_same_pieces(text, skip):
    tokens = tokens_of(text)
    whole, _ = run(tokens)
    assert run(tokens, skip=min(skip, len(tokens)))[0] == whole[skip:]


@given(
    st.text(alphabet="abc ", min_size=1),
    st.lists(st.text(alphabet="abc ", min_size=1, max_size=6), min_size=1),
)
def test_a_stop_text_ends_the_text_before_it(text, stop):
    tokens = tokens_of(text)
    pieces, is_stopped = run(tokens, stop)
    decoded = text_of(run(tokens)[0])
    assert is_stopped == any(one in decoded for one in stop)
    assert not any(one in text_of(pieces) for one in stop)
    assert decoded.startswith(text_of(pieces))
    if not is_stopped:
        assert text_of(pieces) == decoded


@given(st.text(alphabet="abc ", min_size=1), st.text(alphabet="abc ", min_size=1, max_size=4), st.data())
def test_going_on_stops_at_the_same_place(text, stop, data):
    tokens = tokens_of(text)
    whole, is_stopped = run(tokens, [stop])
    skip = data.draw(st.integers(0, max(len(whole) - 1, 0)))
    # Another attempt goes on only from what was given out before the end.
    stream = Detokenizer(TOKENIZER, tokens_of("Once"), [stop])
    before = []
    for token in tokens[:skip]:
        before += stream.add(token)[0]
    rest, again = run(tokens, [stop], skip=len(before))
    assert text_of(before) + text_of(rest) == text_of(whole)
    assert again == is_stopped


def test_a_beginning_of_a_stop_text_is_held_back_until_it_is_none():
    stream = Detokenizer(TOKENIZER, tokens_of("Once"), ["xyz"])
    first = [stream.add(token)[0] for token in tokens_of("x")]
    assert first == [[]]
    assert text_of(stream.add(tokens_of("a")[0])[0]) == "xa"
