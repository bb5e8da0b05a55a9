"""What is well formed is understood, however it comes: inputs made by hypothesis."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from penstock.objects import OBJECT_BYTES_MAX, ObjectId
from penstock.ticket import Ticket, _encode, _text_of, parse
from penstock_node.store.chunk_file import Footer, encode_footer, parse_footer
from penstock_node.transport.http import HttpRequest, HttpSession, reply
from penstock_node.transport.reply import Reply
from tests.fuzz.network import _OK

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)
OBJECTS = st.builds(
    ObjectId,
    key=NAMES,
    version=NAMES,
    size=st.integers(1, OBJECT_BYTES_MAX),
    chunk_size=st.integers(1, 16).map(lambda blocks: blocks * 65_536),
)
TOKEN = st.text("abcXYZ019-_.", min_size=1, max_size=20)
BODIES = st.binary(max_size=50)


@given(OBJECTS, NAMES, NAMES, st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32))
def test_a_ticket_is_what_was_signed(
    subject: ObjectId, volume: str, key_id: str, expires_at: int, mac: bytes
) -> None:
    ticket = Ticket("ab" * 16, volume, subject, expires_at)
    payload = _encode(ticket, key_id)

    assert parse(_text_of(payload + mac)) == (ticket, key_id, payload, mac)


@given(OBJECTS, st.data())
def test_a_footer_tells_what_was_kept(subject: ObjectId, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, subject.chunk_count - 1))
    payload_bytes = subject.chunk_length(index)
    checksums = data.draw(st.binary()).ljust(-(-payload_bytes // 65_536) * 8, b"x")
    footer = Footer(subject, index, checksums[: -(-payload_bytes // 65_536) * 8])
    end = encode_footer(footer)

    assert parse_footer(end, file_bytes=payload_bytes + len(end)) == footer


def written(target: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"POST /{target} HTTP/1.1", f"Content-Length: {len(body)}"]
    lines += [f"X-{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@given(
    st.lists(st.tuples(TOKEN, st.dictionaries(TOKEN, TOKEN, max_size=5), BODIES), max_size=5),
    st.lists(st.integers(0, 2000), max_size=20),
)
def test_requests_are_those_that_were_sent_wherever_their_bytes_are_cut(
    sent: list[tuple[str, dict[str, str], bytes]], cuts: list[int]
) -> None:
    taken: list[HttpRequest] = []

    def take(request: HttpRequest) -> Reply:
        taken.append(request)
        return reply(_OK)

    session, inbox = HttpSession(take), bytearray()
    stream = b"".join(written(*each) for each in sent)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, stop in pairwise(edges):
        inbox += stream[start:stop]
        while session.step(inbox) is not None:
            pass

    assert [(request.target[1:], request.body) for request in taken] == [
        (target, body) for target, _, body in sent
    ]
    assert not inbox
