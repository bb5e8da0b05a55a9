"""One connection: requests in, replies out in order, and nothing that waits."""

import random
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from penstock_node.transport import connection
from penstock_node.transport.connection import (
    HELD_MAX_S,
    INTERIM_S,
    REQUESTS_A_TURN,
    Connection,
    Wants,
)
from penstock_node.transport.reply import Octets, Outcome, Reply

BIG = random.Random(2).randbytes(500_000)
SOME = BIG[:70_000]
"""More than is received at once, and less than a socket holds."""

Answer = Callable[[bytes], Outcome]


def echo(line: bytes) -> Outcome:
    return Reply([Octets(line)])


class Lines:
    """A protocol of lines: each is a request."""

    def __init__(self, answer: Answer) -> None:
        self.is_last = False
        self.interim = b"wait "
        self.is_closed = False
        self.lines: list[bytes] = []
        self._answer = answer

    def step(self, inbox: bytearray) -> Outcome | None:
        line, end, _rest = inbox.partition(b"\n")
        if not end:
            return None
        del inbox[: len(line) + 1]
        self.lines.append(bytes(line))
        self.is_last = line == b"last"
        return self._answer(bytes(line))

    def close(self) -> None:
        self.is_closed = True


class Watched:
    """A part that takes a given number of turns, and knows whether it was closed."""

    def __init__(self, turns: int = 0) -> None:
        self._turns = turns
        self.closed = 0

    def send_to(self, _target: socket.socket) -> bool:
        self._turns -= 1
        return self._turns < 0

    def close(self) -> None:
        self.closed += 1


class Rig:
    """A connection and the reader at its other end."""

    def __init__(self) -> None:
        self.answer: Answer = echo
        self.session = Lines(lambda line: self.answer(line))
        ours, self.reader = socket.socketpair()
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self.reader.settimeout(10)
        self.connection = Connection(ours, self.session)

    def send(self, data: bytes) -> Wants:
        self.reader.sendall(data)
        return self.connection.advance()

    def drain(self) -> bytes:
        """Advance and read by turns until the connection has no more to send."""
        received, wants = bytearray(), self.connection.wants
        while wants in (Wants.OUTPUT, Wants.TURN):
            received += self.peek()
            wants = self.connection.advance()
        return bytes(received + self.peek())

    def peek(self) -> bytes:
        """Return what has arrived by now."""
        received = bytearray()
        self.reader.setblocking(False)
        try:
            while data := self.reader.recv(1 << 16):
                received += data
        except BlockingIOError:
            pass
        self.reader.settimeout(10)
        return bytes(received)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.connection.close()
    made.reader.close()


# Requests -----------------------------------------------------------------------------------


def test_a_request_that_is_cut_anywhere_is_answered_when_it_is_whole(rig: Rig) -> None:
    line = b"a request\n"
    for cut in range(1, len(line)):
        assert rig.send(line[:cut]) is Wants.INPUT
        assert rig.peek() == b""

        assert rig.send(line[cut:]) is Wants.INPUT
        assert rig.peek() == b"a request"


def test_requests_sent_without_waiting_are_answered_in_order(rig: Rig) -> None:
    lines = [f"line {at}".encode() for at in range(10 * REQUESTS_A_TURN)]

    rig.send(b"\n".join(lines) + b"\n")

    assert rig.drain() == b"".join(lines)
    assert rig.connection.is_idle


def test_after_a_few_requests_others_have_their_turn(rig: Rig) -> None:
    rig.answer = lambda _line: Reply()

    assert rig.send(b"x\n" * 2 * REQUESTS_A_TURN) is Wants.TURN

    assert len(rig.session.lines) <= REQUESTS_A_TURN


def test_the_next_request_waits_for_the_answer_before(rig: Rig) -> None:
    first: Future[Reply] = Future()
    rig.answer = lambda line: first if line == b"slow" else Reply([Octets(line)])

    assert rig.send(b"slow\nfast\n") is Wants.ANSWER
    assert rig.session.lines == [b"slow"]
    assert rig.connection.waiting is first
    rig.connection.answer(Reply([Octets(b"at last ")]))
    rig.connection.advance()

    assert rig.peek() == b"at last fast"


def test_it_is_idle_only_between_requests(rig: Rig) -> None:
    assert rig.connection.is_idle
    rig.send(b"half a li")
    assert not rig.connection.is_idle
    rig.send(b"ne\n")
    assert rig.connection.is_idle


# Replies ------------------------------------------------------------------------------------


def test_a_reply_that_does_not_fit_waits_for_room_and_arrives_whole(rig: Rig) -> None:
    rig.answer = lambda line: Reply([Octets(line), Octets(BIG), Octets(b"end")])

    assert rig.send(b"a\nb\n") is Wants.OUTPUT
    assert rig.session.lines == [b"a"]

    assert rig.drain() == b"a" + BIG + b"endb" + BIG + b"end"


def test_a_long_answer_comes_reply_by_reply(rig: Rig) -> None:
    pieces = [BIG[at : at + 60_000] for at in range(0, len(BIG), 60_000)]
    late: Future[Reply] = Future()

    def reply(at: int) -> Reply:
        follows = (lambda: reply(at + 1)) if at + 1 < len(pieces) else (lambda: late)
        return Reply([Octets(pieces[at])], then=follows)

    rig.answer = lambda line: reply(0) if line == b"long" else Reply([Octets(line)])

    rig.send(b"long\nnext\n")
    received = rig.drain()
    assert received == BIG
    assert rig.connection.wants is Wants.ANSWER
    rig.connection.answer(Reply([Octets(b"-")]))
    rig.connection.advance()

    assert rig.peek() == b"-next"


def test_a_part_is_closed_as_soon_as_it_is_sent(rig: Rig) -> None:
    first, second = Watched(), Watched(turns=1)
    rig.answer = lambda _line: Reply([first, second])

    assert rig.send(b"a\n") is Wants.OUTPUT
    assert (first.closed, second.closed) == (1, 0)
    rig.connection.advance()
    assert (first.closed, second.closed) == (1, 1)


# Interim answers ----------------------------------------------------------------------------


def say_working(rig: Rig, times: int = 1) -> bytes:
    """Have as much time pass as it takes to say so so often; return what has arrived of it."""
    begun, said = time.monotonic(), b""
    for number in range(1, times + 1):
        rig.connection.say_working(begun + 1 + number * 2 * INTERIM_S)
        said += rig.peek()
    return said


def test_interim_answers_come_before_the_answer(rig: Rig) -> None:
    waiting: Future[Reply] = Future()
    rig.answer = lambda _line: waiting
    rig.send(b"a\n")

    assert say_working(rig, times=3) == b"wait " * 3
    rig.connection.answer(Reply([Octets(b"answer")]))
    rig.connection.advance()

    assert rig.peek() == b"answer"


def test_an_interim_answer_is_due_now_and_then(rig: Rig) -> None:
    rig.answer = lambda _line: Future()
    rig.send(b"a\n")
    begun, said = time.monotonic(), b""

    for in_intervals in (100, 100.1, 100.9, 101.1, 102):
        rig.connection.say_working(begun + in_intervals * INTERIM_S)
        said += rig.peek()

    assert said == b"wait wait "


def test_a_worker_that_a_disk_holds_does_not_keep_the_reader_in_the_dark(rig: Rig) -> None:
    seen: list[bytes] = []

    def hold(line: bytes) -> Outcome:
        seen.append(say_working(rig, times=2))  # By another thread, while this one is held.
        return Reply([Octets(line)])

    rig.answer = hold
    rig.send(b"a\n")

    assert seen == [b"wait wait "]
    assert rig.peek() == b"a"


def test_a_disk_that_hangs_is_not_work(rig: Rig) -> None:
    def hang(line: bytes) -> Outcome:
        rig.connection.say_working(time.monotonic() + HELD_MAX_S + 1)
        assert rig.peek() == b""
        return Reply([Octets(line)])

    rig.answer = hang
    rig.send(b"a\n")

    assert rig.peek() == b"a"


def test_a_fill_may_take_its_time(rig: Rig) -> None:
    rig.answer = lambda _line: Future()
    rig.send(b"a\n")
    rig.connection.say_working(time.monotonic() + 10 * HELD_MAX_S)

    assert rig.peek() == b"wait "


def test_the_next_part_of_an_answer_may_take_time_too(rig: Rig) -> None:
    late: Future[Reply] = Future()
    rig.answer = lambda line: Reply([Octets(line)], then=lambda: late)
    rig.send(b"a\n")
    assert rig.peek() == b"a"

    assert say_working(rig) == b"wait "


@pytest.mark.parametrize(("sent", "answered"), [(b"half a li", b""), (b"whole\n", b"whole")])
def test_nothing_is_said_of_a_request_that_is_not_all_there_or_is_answered(
    rig: Rig, sent: bytes, answered: bytes
) -> None:
    rig.send(sent)
    assert rig.peek() == answered

    assert say_working(rig, times=3) == b""


def test_nothing_is_said_in_the_midst_of_an_answer(rig: Rig) -> None:
    rig.answer = lambda line: Reply([Octets(line), Octets(BIG)])
    assert rig.send(b"a\n") is Wants.OUTPUT

    said = say_working(rig, times=3)

    assert said + rig.drain() == b"a" + BIG


def test_who_is_not_to_be_told_is_not_told(rig: Rig) -> None:
    rig.session.interim = b""
    rig.answer = lambda _line: Future()
    rig.send(b"a\n")

    assert say_working(rig, times=3) == b""


def test_interim_answers_that_nobody_reads_do_not_pile_up_and_break_nothing(rig: Rig) -> None:
    waiting: Future[Reply] = Future()
    rig.answer, word = (lambda _line: waiting), b"<" + b"." * 998 + b">"
    rig.session.interim = word
    rig.send(b"a\n")
    begun = time.monotonic()
    for number in range(5_000):
        rig.connection.say_working(begun + 1 + number * 2 * INTERIM_S)
    rig.connection.answer(Reply([Octets(b"answer")]))
    rig.connection.wants = Wants.OUTPUT
    received = rig.drain()

    words, rest = divmod(len(received) - len(b"answer"), len(word))
    assert rest == 0
    assert received == word * words + b"answer"
    assert words < 1_000


def test_an_interim_answer_to_a_reader_that_is_gone_is_no_error(rig: Rig) -> None:
    rig.answer = lambda _line: Future()
    rig.send(b"a\n")
    rig.reader.close()

    rig.connection.say_working(time.monotonic() + 1)

    assert rig.connection.wants is Wants.ANSWER


def test_nothing_is_said_on_a_closed_connection(rig: Rig) -> None:
    rig.answer = lambda _line: Future()
    rig.send(b"a\n")
    rig.connection.close()

    rig.connection.say_working(time.monotonic() + 1)

    assert rig.reader.recv(100) == b""


# The end ------------------------------------------------------------------------------------


def test_a_reader_that_sends_no_more_is_answered_first(rig: Rig) -> None:
    rig.answer = lambda line: Reply([Octets(line), Octets(BIG)])
    rig.reader.sendall(b"a\nb\n")
    rig.reader.shutdown(socket.SHUT_WR)
    rig.connection.advance()

    assert rig.drain() == b"a" + BIG + b"b" + BIG
    assert rig.connection.wants is Wants.END


@pytest.mark.parametrize("says_so", ["reply", "session"])
def test_after_the_last_answer_nothing_more_is_taken(rig: Rig, says_so: str) -> None:
    line = b"last" if says_so == "session" else b"any"
    rig.answer = lambda _line: Reply([Octets(BIG)], ends=says_so == "reply")

    rig.send(line + b"\nmore\n")

    assert rig.drain() == BIG
    rig.reader.close()
    assert rig.connection.advance() is Wants.END
    assert rig.session.lines == [line]


def test_an_answer_that_ends_goes_on_to_its_end(rig: Rig) -> None:
    rig.answer = lambda line: Reply(
        [Octets(line)], ends=True, then=lambda: Reply([Octets(b" and more")])
    )

    rig.send(b"a\nb\n")
    assert rig.peek() == b"a and more"


def test_who_is_refused_may_finish_sending_and_then_reads_why(rig: Rig) -> None:
    rig.answer = lambda _line: Reply([Octets(b"refused")], ends=True)

    assert rig.send(b"a\nb\n") is Wants.INPUT
    assert rig.connection.is_ending
    for _ in range(3):
        assert rig.send(SOME) is Wants.INPUT

    assert rig.reader.recv(100) + rig.reader.recv(100) == b"refused"
    rig.reader.close()
    assert rig.connection.advance() is Wants.END
    assert rig.session.lines == [b"a"]


def test_who_is_refused_and_sends_without_end_is_cut_off(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "DISCARDED_MAX", 2 * len(SOME))
    rig.answer = lambda _line: Reply([Octets(b"refused")], ends=True)

    told = [rig.send(b"a\n"), *(rig.send(SOME) for _ in range(3))]

    assert told == [Wants.INPUT, Wants.INPUT, Wants.INPUT, Wants.END]


def test_what_a_refused_sender_still_sends_is_taken_in_turns(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "DISCARDS_A_TURN", 1)
    rig.answer = lambda _line: Reply([Octets(b"refused")], ends=True)

    assert rig.send(b"a\n" + SOME) is Wants.TURN


def test_a_reader_that_leaves_ends_it(rig: Rig) -> None:
    rig.reader.close()

    assert rig.connection.advance() is Wants.END


def test_a_reader_that_is_gone_while_it_is_sent_to_is_an_error(rig: Rig) -> None:
    rig.answer = lambda _line: Reply([Octets(BIG)])
    assert rig.send(b"a\n") is Wants.OUTPUT
    rig.reader.close()

    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        rig.connection.advance()


def test_closing_lets_go_of_everything(rig: Rig) -> None:
    parts = [Watched(turns=9), Watched()]
    rig.answer = lambda _line: Reply([*parts])
    rig.send(b"a\n")

    rig.connection.close()

    assert [part.closed for part in parts] == [1, 1]
    assert rig.session.is_closed
    assert rig.connection.socket.fileno() < 0


def test_closing_gives_up_the_answer_that_is_waited_for(rig: Rig) -> None:
    waiting: Future[Reply] = Future()
    rig.answer = lambda _line: waiting
    rig.send(b"a\n")

    rig.connection.close()

    assert waiting.cancelled()
