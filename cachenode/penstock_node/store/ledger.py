"""What a tier holds, and every byte of its budget, in memory.

Responsible for: the index of a tier's chunks and the sum that must never pass its capacity,
as transitions that are atomic and thread-safe.
Not responsible for: files. Its caller plans here, works on the disk with no lock held, and
settles here. The order of eviction is the policy's.

The sum: chunks in the index + being written + leaving (no longer in the index, not unlinked yet)
+ unlinked but held open by readers + in quarantine + not scanned yet. The last is an upper bound:
a tier that has just started assumes that its disk is full, and pays for what it writes by
evicting chunks that it has found, until the scan has found them all.

A chunk whose file comes or goes is *changing*, from plan to settlement, and only one thread
changes it: an unlink that is late cannot hit the file that replaced the one it was meant for.
"""

import threading
from collections.abc import Collection, Iterable

from penstock.objects import ObjectId
from penstock_node.store.bookings import Departure, OpenFile, Room, Since
from penstock_node.store.eviction import EvictionOrder, Reason, Victim
from penstock_node.store.index import Flags
from penstock_node.store.listed import Listed


class Ledger:
    """The books of one tier. ``used_bytes`` never passes the capacity by what is added here."""

    def __init__(
        self,
        *,
        capacity_bytes: int,
        policy: EvictionOrder,
        unscanned_bytes: int,
        quarantined_bytes: int,
    ) -> None:
        self._capacity_bytes = capacity_bytes
        self._policy = policy
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._open: dict[bytes, OpenFile] = {}
        self._open_bytes = 0  # Of those: chunks in the index that readers hold.
        self._changing: set[bytes] = set()
        self._listings: list[Since] = []  # Under way: whose names may be stale.
        self._is_scanned = unscanned_bytes == 0
        self._unscanned_bytes = unscanned_bytes
        self._quarantined_bytes = quarantined_bytes
        self._writing_bytes = 0
        self._leaving_bytes = 0
        self._held_bytes = 0

    @property
    def used_bytes(self) -> int:
        """What counts against the capacity now."""
        with self._lock:
            return self._used()

    @property
    def cached_bytes(self) -> int:
        """The chunks in the index alone."""
        with self._lock:
            return self._policy.used_bytes

    @property
    def is_scanned(self) -> bool:
        """Whether every chunk on disk is in the index."""
        with self._lock:
            return self._is_scanned

    def __len__(self) -> int:
        with self._lock:
            return len(self._policy)

    def __contains__(self, chunk_id: bytes) -> bool:
        with self._lock:
            return self._policy.size_of(chunk_id) is not None

    def chunks(self) -> list[Victim]:
        """Return every chunk in the index, as it is now."""
        with self._lock:
            return self._policy.chunks()

    def best_first(self) -> Listed:
        """Return every chunk in the index: first those of objects most worth keeping."""
        with self._lock:
            chunks, worths = self._policy.worths()
        # No reader waits for the sorting.
        return chunks.at(worths.argsort(kind="stable")[::-1])

    def size_of(self, chunk_id: bytes) -> int | None:
        """Return what a chunk's file takes; None if it is not in the index."""
        with self._lock:
            return self._policy.size_of(chunk_id)

    def readings_of(self, chunk_id: bytes) -> float:
        """Return how often a chunk's object was read of late; 0 for one that is not here."""
        with self._lock:
            return self._policy.readings_of(chunk_id) or 0.0

    def raise_readings(self, chunk_id: bytes, readings: float) -> None:
        """Have the object of a chunk that may be here count as read at least so often of late."""
        with self._lock:
            self._policy.raise_readings(chunk_id, readings)

    def pin(self, objects: Iterable[ObjectId]) -> None:
        """Have chunks of these objects, and of no others, go after all else."""
        with self._lock:
            self._policy.pin(objects)

    def attribute(self, chunk_id: bytes, *, of: ObjectId) -> bool:
        """Note what object a chunk is of; tell whether it is here. Counts as no use."""
        with self._lock:
            return self._policy.attribute(chunk_id, of=of)

    def is_worth_room(self, size_bytes: int, *, readings: float) -> bool:
        """Tell whether there is room, or what goes next is read less than ``readings``."""
        with self._lock:
            is_free = self._used() + size_bytes <= self._capacity_bytes
            return is_free or not self._is_read_more(readings)

    # Readers.

    def acquire(
        self, chunk_id: bytes, *, is_use: bool, of: ObjectId | None = None
    ) -> OpenFile | None:
        """Count one more handle on a chunk, before its file is opened; None if it is not here.

        Args:
            chunk_id: The chunk.
            is_use: It counts for the order of eviction.
            of: The chunk's object, as far as it is known.
        """
        with self._lock:
            size_bytes = (
                self._policy.touch(chunk_id, of=of) if is_use else self._policy.size_of(chunk_id)
            )
            if size_bytes is None:
                return None
            file = self._open.get(chunk_id)
            if file is None:
                file = self._open[chunk_id] = OpenFile(chunk_id, size_bytes)
                self._open_bytes += size_bytes
            file.handles += 1
            return file

    def release(self, file: OpenFile) -> None:
        """Count one handle less."""
        with self._lock:
            assert file.handles > 0, f"{file.chunk_id.hex()} is released more often than acquired"
            file.handles -= 1
            if file.handles > 0:
                return
            if file.is_unlinked:
                self._held_bytes -= file.size_bytes
            elif self._open.get(file.chunk_id) is file:
                del self._open[file.chunk_id]
                self._open_bytes -= file.size_bytes

    def is_verified(self, file: OpenFile) -> bool | None:
        """Tell whether this process has written the file of a chunk, or verified it.

        None: what was opened by path after `acquire` may not be the file that was acquired.
        """
        with self._lock:
            if self._open.get(file.chunk_id) is not file:
                return None
            return not self._policy.is_unverified(file.chunk_id)

    def verified(self, file: OpenFile) -> None:
        """Note that the payload of an acquired file matches its checksums."""
        with self._lock:
            if self._open.get(file.chunk_id) is file:
                self._policy.verified(file.chunk_id)

    # Writers.

    def plan_room(self, size_bytes: int, *, readings: float | None = None) -> Room | None:
        """Plan to reserve ``size_bytes``; None, and nothing is doomed, if that is hopeless.

        With ``readings``, also if what goes next is read as often.
        """
        with self._lock:
            missing = max(0, self._used() + size_bytes - self._capacity_bytes)
            if missing > 0 and (missing > self._evictable() or self._is_read_more(readings)):
                return None
            room = Room(size_bytes, self._doom(missing), max(0, size_bytes - missing))
            self._writing_bytes += room.reserved_bytes
            return room

    def settle_room(self, room: Room, *, unlinked: list[Departure]) -> bool:
        """Settle what was unlinked of ``room.doomed`` and reserve the rest; False: no room."""
        with self._lock:
            self._settle(room.doomed, unlinked)
            rest = room.size_bytes - room.reserved_bytes
            if self._used() + rest > self._capacity_bytes and rest > 0:
                self._writing_bytes -= room.reserved_bytes
                return False
            self._writing_bytes += rest
            return True

    def plan_eviction(self, bytes_wanted: int) -> list[Departure]:
        """Doom chunks of at least ``bytes_wanted``, whatever the budget says."""
        with self._lock:
            return self._doom(bytes_wanted)

    def plan_trim(self, *, bytes_max: int) -> list[Departure]:
        """Doom at most about ``bytes_max`` of what is over the capacity."""
        with self._lock:
            return self._doom(min(bytes_max, self._used() - self._capacity_bytes))

    def settle(self, doomed: Iterable[Departure], *, unlinked: list[Departure]) -> None:
        """Settle doomed chunks: those not in ``unlinked`` could not be, and are back."""
        with self._lock:
            self._settle(doomed, unlinked)

    def cancel(self, size_bytes: int) -> None:
        """Give back a reservation whose write came to nothing; nothing of it is on disk."""
        with self._lock:
            self._writing_bytes -= size_bytes

    def begin_change(self, chunk_id: bytes) -> bool:
        """Wait until nobody changes the chunk, and change it; False if it is in the index."""
        with self._lock:
            self._changed.wait_for(lambda: chunk_id not in self._changing)
            if self._policy.size_of(chunk_id) is not None:
                return False
            self._changing.add(chunk_id)
            return True

    def end_change(self, chunk_id: bytes) -> None:
        """Stop changing a chunk that did not come in."""
        with self._lock:
            self._end_change(chunk_id)

    def published(
        self, chunk_id: bytes, size_bytes: int, *, reason: Reason, of: ObjectId | None = None
    ) -> None:
        """Turn the reservation of a changing chunk into the chunk."""
        with self._lock:
            self._end_change(chunk_id)
            self._writing_bytes -= size_bytes
            self._policy.insert(chunk_id, size_bytes, reason=reason, of=of)

    # Those who take chunks out.

    def take(self, chunk_id: bytes) -> Departure | None:
        """Take a chunk out of the index; None if it is not there."""
        with self._lock:
            if self._policy.size_of(chunk_id) is None:
                return None
            return self._leave(chunk_id, self._policy.remove(chunk_id))

    def take_file(self, file: OpenFile) -> Departure | None:
        """Take the chunk of an acquired file out of the index; None if another has replaced it."""
        with self._lock:
            if self._open.get(file.chunk_id) is not file:
                return None
            return self._leave(file.chunk_id, self._policy.remove(file.chunk_id))

    def quarantined(self, departure: Departure) -> None:
        """Settle a departure whose file was moved, not unlinked."""
        with self._lock:
            self._leaving_bytes -= departure.size_bytes
            self._quarantined_bytes += departure.size_bytes
            self._end_change(departure.chunk_id)

    def left_quarantine(self, departure: Departure) -> None:
        """Note that a file in quarantine was unlinked."""
        with self._lock:
            self._quarantined_bytes -= departure.size_bytes
            self._hold_while_open(departure)

    # The scan.

    def found(self, chunk_id: bytes, size_bytes: int) -> None:
        """Index a changing chunk that was on disk before this process started."""
        with self._lock:
            self._end_change(chunk_id)
            self._found(chunk_id, size_bytes)

    def begin_listing(self) -> Since:
        """Say that directories are about to be listed: names in them may go stale from now on.

        Returns:
            What `listed` wants to be told.
        """
        with self._lock:
            # A chunk that is leaving now may still be listed, and be gone when it is indexed.
            since = set(self._changing)
            self._listings.append(since)
            return since

    def listed(self, listed: Listed, *, since: Since) -> None:
        """Index those chunks of a listing that are not known and have not left since it began."""
        with self._lock:
            # Nearly all are new, and taken in at once; only the others are looked at one by one.
            is_odd = self._policy.may_hold(listed) | _are_among(listed, self._changing)
            is_odd |= _are_among(listed, since) | listed.repeats()
            for chunk_id, size_bytes in listed.where(is_odd):
                is_known = self._policy.size_of(chunk_id) is not None or chunk_id in self._changing
                if not is_known and chunk_id not in since:
                    self._found(chunk_id, size_bytes)
            new = listed.where(~is_odd)
            self._policy.insert_found(new)
            self._unscanned_bytes = max(0, self._unscanned_bytes - new.total_bytes)
            self._listings = [other for other in self._listings if other is not since]

    def end_listings(self) -> None:
        """Say that no directory is being listed."""
        with self._lock:
            self._listings.clear()

    def scanned(self) -> None:
        """Say that every directory has been listed."""
        with self._lock:
            self._is_scanned = True
            self._unscanned_bytes = 0

    # Below, the lock is held.

    def _used(self) -> int:
        return (
            self._policy.used_bytes
            + self._writing_bytes
            + self._leaving_bytes
            + self._held_bytes
            + self._quarantined_bytes
            + self._unscanned_bytes
        )

    def _is_read_more(self, readings: float | None) -> bool:
        return readings is not None and self._policy.least_readings() >= readings

    def _evictable(self) -> int:
        return self._policy.used_bytes - self._open_bytes

    def _doom(self, bytes_wanted: int) -> list[Departure]:
        victims = self._policy.victims(bytes_wanted, in_use=self._open)
        return [self._leave(victim.chunk_id, victim.size_bytes) for victim in victims]

    def _leave(self, chunk_id: bytes, size_bytes: int) -> Departure:
        assert chunk_id not in self._changing, f"{chunk_id.hex()} changes while it is indexed"
        self._changing.add(chunk_id)
        self._leaving_bytes += size_bytes
        for since in self._listings:
            since.add(chunk_id)
        file = self._open.pop(chunk_id, None)
        self._open_bytes -= file.size_bytes if file else 0
        return Departure(chunk_id, size_bytes, file)

    def _settle(self, doomed: Iterable[Departure], unlinked: list[Departure]) -> None:
        gone = {departure.chunk_id for departure in unlinked}
        for departure in doomed:
            self._leaving_bytes -= departure.size_bytes
            self._end_change(departure.chunk_id)
            if departure.chunk_id in gone:
                self._hold_while_open(departure)
            else:
                self._come_back(departure)

    def _end_change(self, chunk_id: bytes) -> None:
        assert chunk_id in self._changing, f"{chunk_id.hex()} is changed without a claim"
        self._changing.remove(chunk_id)
        self._changed.notify_all()

    def _hold_while_open(self, departure: Departure) -> None:
        if departure.file is not None and departure.file.handles > 0:
            departure.file.is_unlinked = True
            self._held_bytes += departure.size_bytes

    def _come_back(self, departure: Departure) -> None:
        self._policy.insert(departure.chunk_id, departure.size_bytes, reason="restart")
        if departure.file is not None and departure.file.handles > 0:
            self._open[departure.chunk_id] = departure.file
            self._open_bytes += departure.size_bytes

    def _found(self, chunk_id: bytes, size_bytes: int) -> None:
        self._policy.insert(chunk_id, size_bytes, reason="restart")
        self._unscanned_bytes = max(0, self._unscanned_bytes - size_bytes)


def _are_among(listed: Listed, chunk_ids: Collection[bytes]) -> Flags:
    """Tell of listed chunks whether they can be among some: all that are, and seldom another."""
    return listed.may_be_among(Listed.of((chunk_id, 0) for chunk_id in chunk_ids).low)
