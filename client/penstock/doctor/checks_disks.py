"""Disks of tiers: lost, full, misconfigured, erring, slow; and what the system allows processes."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import chain

from penstock.doctor.facts import Disk, Facts, Limits
from penstock.doctor.finding import Checked, Finding, Place
from penstock.doctor.judging import common, counted, milliseconds, outliers
from penstock.units import format_size

SLOW_FLOOR_S = 0.2
"""To write 4 MiB down to the disk, or to read them: 20 MB/s. A spinning disk is twice as fast."""
SIZE = "4 MiB"
TAKEN_SHARE = 0.05
"""Of its budget may be taken from a tier by other files before it is worth a word."""
FULL_SHARE = 0.01
"""A file system with less than this free is full: others' writes fail too."""
IN_MEMORY = frozenset({"tmpfs", "ramfs", "hugetlbfs"})
NEAR_LIMIT = 0.8
DESCRIPTORS_FEW = 16_384
"""A reader's connection takes one, and so does each chunk that it reads."""


def _disks(facts: Facts) -> Iterator[tuple[str, Disk]]:
    return chain.from_iterable(
        ((name, disk) for disk in examined.disks)
        for name, examined in sorted(facts.examined.items())
    )


def check_disks(facts: Facts) -> Checked:
    """Judge each tier's disk."""
    findings: list[Finding] = []
    for node, disk in _disks(facts):
        findings += _lost(node, disk) or [*_erring(node, disk), *_misplaced(node, disk)]
    findings += _room(facts)
    findings += _speed(facts)
    return Checked("disks", findings, _summary(facts))


def _summary(facts: Facts) -> str:
    disks = [disk for _, disk in _disks(facts)]
    measured = [disk for disk in disks if disk.measured_bytes]
    if not measured:
        return f"{counted(len(disks), 'tier')}, not measured"
    size = format_size(measured[0].measured_bytes)
    slowest = max(measured, key=lambda disk: disk.write_s)
    reading = max(measured, key=lambda disk: disk.read_s)
    tiers, write_s = counted(len(disks), "tier"), milliseconds(slowest.write_s)
    return f"{tiers}; {size} written in {write_s} at most, read in {milliseconds(reading.read_s)}"


def _lost(node: str, disk: Disk) -> list[Finding]:
    place = Place("disk", disk.path, node)
    if disk.trouble:
        return [
            Finding(
                "problem",
                place,
                f"is out of use: {disk.trouble}",
                "its chunks are read from elsewhere, and the node's weight is lower meanwhile",
                f"on {node}: dmesg, then repair and mount it at {disk.path}; it comes back by "
                "itself",
            )
        ]
    if disk.failure and not disk.failure.startswith("no room"):
        return [
            Finding(
                "problem",
                place,
                f"could not be looked at: {disk.failure}",
                "reads of its chunks wait as long",
                f"on {node}: dmesg, and iostat -x 1; a disk that hangs for good is taken out by "
                "itself",
            )
        ]
    return []


def _erring(node: str, disk: Disk) -> list[Finding]:
    found = [
        (count, what)
        for count, what in (
            (disk.read_errors, "refused reads"),
            (disk.write_errors, "refused writes"),
            (disk.corrupt_chunks, "damaged chunks"),
        )
        if count
    ]
    if not found:
        return []
    return [
        Finding(
            "warning",
            Place("disk", disk.path, node),
            f"has met since the start: {', '.join(f'{count:,} {what}' for count, what in found)}",
            "no wrong byte was given away; each of them cost a read from elsewhere",
            f"on {node}: dmesg, and smartctl -a of the drive; replace it if they grow",
        )
    ]


def _misplaced(node: str, disk: Disk) -> list[Finding]:
    if disk.role != "memory" or not disk.file_system or disk.file_system in IN_MEMORY:
        return []
    return [
        Finding(
            "warning",
            Place("disk", disk.path, node),
            f"has the role memory, and lies on {disk.file_system}",
            "it is a disk like any other: what should come from memory is read from there",
            f"on {node}: mount -t tmpfs -o size={format_size(disk.budget_bytes).replace(' ', '')} "
            f"tmpfs {disk.path}; or give the tier the role local",
        )
    ]


def _room(facts: Facts) -> list[Finding]:
    by_device: dict[tuple[str, int], list[Disk]] = defaultdict(list)
    for node, disk in _disks(facts):
        if disk.total_bytes and not disk.trouble:
            by_device[node, disk.device].append(disk)
    return [
        finding
        for (node, _), disks in by_device.items()
        if (finding := _room_of(node, disks)) is not None
    ]


def _room_of(node: str, disks: list[Disk]) -> Finding | None:
    """Judge one file system, with all tiers that lie on it."""
    first = disks[0]
    place = Place("disk", first.path, node)
    total, free = first.total_bytes, first.free_bytes
    budget, used = sum(d.budget_bytes for d in disks), sum(d.used_bytes for d in disks)
    if budget > total:
        return Finding(
            "warning",
            place,
            f"has a budget of {format_size(budget)} on a file system of {format_size(total)}",
            "weights follow budgets: the node is given a share that it has no room for",
            f"lower capacity in [[tiers]] of {node} to what there is: {format_size(total)}",
        )
    others = max(0, total - free - used)
    reachable = used + max(0, free - first.floor_bytes)
    is_taken = budget - reachable > TAKEN_SHARE * budget
    is_full = free < FULL_SHARE * total or any(d.failure.startswith("no room") for d in disks)
    if not is_taken and not (is_full and others > total - budget):
        return None
    return Finding(
        "problem" if is_full else "warning",
        place,
        f"is {'full' if is_full else 'nearly full'}: {format_size(free)} of {format_size(total)} "
        f"are free, and other files than the cache's take {format_size(others)}",
        f"the tier can use {format_size(reachable)} of its {format_size(budget)}: it evicts what "
        "it was given a share for",
        f"on {node}: du -xh --max-depth=2 the file system and move what does not belong there, or "
        f"lower capacity of the tier {first.path}",
    )


def _speed(facts: Facts) -> list[Finding]:
    slow: dict[tuple[str, str], list[str]] = defaultdict(list)
    findings: list[Finding] = []
    for what, seconds in _seconds(facts).items():
        for outlier in outliers(seconds, floor=SLOW_FLOOR_S):
            took, usual = milliseconds(outlier.figure), milliseconds(outlier.usual)
            slow[outlier.key].append(f"a {what} of {SIZE} takes {took}, the others {usual}")
        everywhere = common(seconds, floor=SLOW_FLOOR_S)
        if everywhere is not None:
            findings.append(
                Finding(
                    "advice",
                    Place("cluster"),
                    f"disks take {milliseconds(everywhere)} to {what} {SIZE}",
                    "that is slower than most object stores",
                    "see whether the tiers are on the SSDs that they should be on",
                )
            )
    for (node, path), told in slow.items():
        findings.append(
            Finding(
                "warning",
                Place("disk", path, node),
                f"is slow: {'; '.join(told)}",
                "reads of its chunks wait as long, and chunks wait in memory to be written to it",
                f"on {node}: iostat -x 1 for who else uses it, smartctl -a for its health; take "
                f"the node off meanwhile: penstock cordon {node}",
            )
        )
    return findings


def _seconds(facts: Facts) -> dict[str, dict[tuple[str, str], float]]:
    """Return what writing, and reading, took on each disk that was measured."""
    measured = [
        ((node, disk.path), disk)
        for node, disk in _disks(facts)
        if disk.measured_bytes and disk.role != "memory"
    ]
    return {
        "write": {key: disk.write_s for key, disk in measured},
        "read": {key: disk.read_s for key, disk in measured},
    }


def check_limits(facts: Facts) -> Checked:
    """Judge how many files and mappings each node's process may have."""
    findings: list[Finding] = []
    for node, examined in sorted(facts.examined.items()):
        findings += _limits(node, examined.limits)
    least = min((e.limits.descriptors_max for e in facts.examined.values()), default=0)
    return Checked("limits", findings, f"{least:,} descriptors at least" if least else "none")


def _limits(node: str, limits: Limits) -> list[Finding]:
    findings = []
    pairs = (
        ("descriptors", limits.descriptors, limits.descriptors_max, "LimitNOFILE=65536 of systemd"),
        ("mappings", limits.mappings, limits.mappings_max, "sysctl vm.max_map_count=1048576"),
    )
    for what, used, most, fix in pairs:
        if most and used > NEAR_LIMIT * most:
            findings.append(
                Finding(
                    "problem",
                    Place("node", node),
                    f"uses {used:,} of {most:,} {what}",
                    "at the limit it refuses connections and reads",
                    f"on {node}: {fix}, and restart the node",
                )
            )
    if 0 < limits.descriptors_max < DESCRIPTORS_FEW and not findings:
        findings.append(
            Finding(
                "advice",
                Place("node", node),
                f"may open {limits.descriptors_max:,} descriptors",
                "each connection, and each chunk that is being read, takes one",
                f"on {node}: LimitNOFILE=65536 of systemd",
            )
        )
    return findings
