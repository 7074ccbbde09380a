"""The tokens of a stream as they stand in it: what is doubled or missing shows."""

from tether.streams.token_log import decode_pieces, read_events


def read_pieces(entries, run):
    """All tokens of one run of a stream, in order."""
    return tuple(
        piece
        for event in read_events(entries)
        if event.kind == "delta" and event.run == run
        for piece in decode_pieces(event.data)
    )
