"""An object cut into chunks: the same ones, however it comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trionats._protocol.jetstream.objects.cutting import Cutter

SIZES = st.integers(1, 12)
PIECES = st.lists(st.binary(max_size=40), max_size=12)


def whole(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@given(PIECES, SIZES, st.sampled_from([bytes, bytearray, memoryview]))
def test_chunks_end_in_the_same_places_whatever_pieces_the_data_comes_in(
    pieces: list[bytes], size: int, kind: type[bytes | bytearray | memoryview]
) -> None:
    cutter = Cutter(size)
    chunks = [bytes(chunk) for piece in pieces for chunk in cutter.cut(kind(piece))]
    assert all(len(chunk) == size for chunk in chunks), "they are complete"
    assert chunks + [bytes(chunk) for chunk in cutter.end()] == whole(b"".join(pieces), size)


@given(PIECES, SIZES, st.lists(st.tuples(st.integers(0, 12), st.integers(0, 5), SIZES), max_size=4))
def test_what_is_cut_anew_is_the_same_data_in_chunks_of_the_new_size(
    pieces: list[bytes], size: int, changes: list[tuple[int, int, int]]
) -> None:
    """At any time, and with any number of chunks handed on that are to stay as they are."""
    cutter, kept, waiting = Cutter(size), list[bytes](), list[bytes]()
    for moment, piece in enumerate([*pieces, None]):
        waiting += map(bytes, cutter.end() if piece is None else cutter.cut(piece))
        for when, stored, smaller in changes:
            if when == moment:
                kept += waiting[:stored]
                waiting = [bytes(chunk) for chunk in cutter.again(waiting[stored:], smaller)]
                assert all(len(chunk) == smaller for chunk in waiting[:-1])
                assert cutter.size == smaller
    data = b"".join(pieces)
    assert b"".join(kept + waiting) == data
    assert waiting == whole(data[sum(map(len, kept)) :], cutter.size)


def test_data_that_comes_in_one_piece_is_not_copied() -> None:
    piece = b"one and two and three"
    chunks = Cutter(8).cut(piece)
    assert [chunk.obj for chunk in chunks if isinstance(chunk, memoryview)] == [piece, piece]


def test_what_is_left_of_a_piece_does_not_keep_the_piece() -> None:
    piece = bytearray(b"12345")
    cutter = Cutter(4)
    del cutter.cut(piece)[:]
    # It could not grow while anybody looks at it.
    piece += b"6"
    assert cutter.end() == [b"5"]
