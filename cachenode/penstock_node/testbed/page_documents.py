"""What a node tells its web page, of clusters that do not run: documents from a seed.

Responsible for: the JSON of ``/api/overview``, ``/api/history`` and ``/api/chunks`` for any number
of nodes, alike in one seed, another at each tick; nodes in any state, with any name or weight.
Not responsible for: sending it (`page_site`), and for what real nodes do.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Document = dict[str, Any]

BEGIN_S = 1_790_000_000.0
TICK_S = 2
STEP_S = 10
SAMPLES_MAX = 360
CHUNK_BYTES = 4 * 1024 * 1024
UNIT_BYTES = 8 * 10**12
"""Of a node of weight 100."""
SOURCES = {"memory": 0.30, "disk": 0.49, "peer": 0.18, "origin": 0.03}
"""What part of all reads comes from where."""
PLANES = {"bulk": 0.62, "host": 0.33, "grpc": 0.01, "s3": 0.03, "hub": 0.01}
BUSY_BYTES_PER_S = 900e6
"""A node's, at its busiest."""
_MODELS = (
    ("penstock://models/llama-3.1-405b/", 812e9, 48.0),
    ("penstock://models/deepseek-v3/", 689e9, 31.0),
    ("penstock://models/flux.1-dev/", 34e9, 12.5),
    ("penstock://models/stable-diffusion-xl/sd_xl_base_1.0.safetensors", 6.9e9, 8.2),
    ("penstock://datasets/imagenet/train/", 148e9, 2.1),
    ("penstock://models/whisper-large-v3/", 3.1e9, 0.4),
)
"""Url, bytes, and GB/s at which it is read."""


@dataclass(frozen=True, slots=True)
class OddNode:
    """What is unlike the others in one node."""

    name: str | None = None
    state: str = "alive"
    held: float = 1.0
    """Times its share."""
    weight: int | None = None
    """Set by an operator."""
    is_idle: bool = False
    """Nothing is read there: it has no hit ratio."""
    waiting_bytes: int = 0
    """Still to come by hand-over."""


@dataclass(frozen=True, slots=True)
class PageDocuments:
    """A cluster's documents; `at` is the same cluster at another time."""

    nodes: int
    seed: int = 7
    tick: int = 0
    odd: Mapping[int, OddNode] = field(default_factory=dict)
    """By a node's number."""
    warmups: int = 0
    models: int = len(_MODELS)
    cluster: str = "prod"
    epoch: int = 12

    def at(self, tick: int) -> "PageDocuments":
        """Return what is told ``tick`` times two seconds later."""
        return replace(self, tick=tick)

    @property
    def now_s(self) -> float:
        """The cluster's time."""
        return BEGIN_S + self.tick * TICK_S

    def name(self, number: int) -> str:
        """Return a node's id."""
        return self._odd(number).name or f"gpu-{number:0{len(str(self.nodes))}d}"

    def overview(self) -> Document:
        """Return what ``/api/overview`` answers."""
        shares = self._shares()
        nodes = [self._node(number, shares[number]) for number in range(self.nodes)]
        return {
            "cluster": self.cluster,
            "epoch": self.epoch,
            "at": self.now_s,
            "node": self.name(0),
            "version": "0.1.0",
            "nodes": nodes,
            "total": self._total(nodes),
            "warmups": [self._warmup(number) for number in range(self.warmups)],
            "models": [self._model(number) for number in range(self.models)],
        }

    def history(self, node: str | None = None) -> Document:
        """Return what ``/api/history`` answers."""
        rng = _chance(self.seed, node)
        scale = BUSY_BYTES_PER_S * (self.nodes if node is None else 1)
        last = self.tick * TICK_S // STEP_S

        def wave(part: float, *, spikes: float = 0.0) -> list[float | None]:
            phase, length = rng.uniform(0, 6), rng.uniform(50, 140)
            values: list[float | None] = []
            for sample in range(last, last + SAMPLES_MAX):
                level = 0.62 + 0.25 * math.sin(sample / length * 6.28 + phase)
                level *= rng.uniform(0.93, 1.07) * (4 if rng.random() < spikes else 1)
                values.append(round(scale * part * level, 1))
            return values

        series = {f"read_bytes.{source}": wave(part) for source, part in SOURCES.items()}
        series |= {"origin_bytes": wave(0.03, spikes=0.03), "evicted_bytes": wave(0.01)}
        series["failures"] = [float(rng.random() < 0.01) for _ in range(SAMPLES_MAX)]
        series["cached_bytes"] = [scale * (6000 + sample) for sample in range(SAMPLES_MAX)]
        series["handoff_bytes"] = [scale / 9 if 90 < i < 140 else 0.0 for i in range(SAMPLES_MAX)]
        for values in series.values():
            values[200:206] = [None] * 6  # The node was being restarted.
        return {"step_s": STEP_S, "until": self.now_s, "series": series}

    def chunks(self, url: str) -> Document:
        """Return what ``/api/chunks`` answers: three objects, of which most is held."""
        rng = _chance(self.seed, url)
        count = 900 if self.nodes < 100 else 4_000
        sizes = {"model-00001-of-00002.safetensors": count, "config.json": 1}
        sizes["model-00002-of-00002.safetensors"] = count // 2
        prefix = url if url.endswith("/") else url.rpartition("/")[0] + "/"
        objects = [
            self._object(prefix + name, chunks, rng) for name, chunks in sorted(sizes.items())
        ]
        names = [self.name(number) for number in range(self.nodes)]
        return {"nodes": names, "objects": objects, "truncated": False}

    def _odd(self, number: int) -> OddNode:
        return self.odd.get(number, OddNode())

    def _weight(self, number: int) -> int:
        odd = self._odd(number)
        if odd.state in ("cordoned", "draining", "drained"):
            return 0
        return (1 + number % 3) * 100 if odd.weight is None else odd.weight

    def _shares(self) -> list[float]:
        rng = _chance(self.seed)
        weights = [self._weight(number) * rng.uniform(0.97, 1.03) for number in range(self.nodes)]
        return [weight / sum(weights) for weight in weights]

    def _node(self, number: int, share: float) -> Document:
        odd, rng = self._odd(number), _chance(self.seed, self.tick, number)
        capacity = (1 + number % 3) * UNIT_BYTES
        fair = 0.55 * share * sum((1 + each % 3) * UNIT_BYTES for each in range(self.nodes))
        held = fair if share else 0.2 * capacity
        used = min(capacity, int(held * odd.held * (1 + 0.01 * math.sin(number))))
        memory = int(40e9 * rng.uniform(0.5, 0.9))
        is_away, is_idle = odd.state == "away", odd.is_idle or odd.state == "away"
        rates = _rates(rng, 0.0 if is_idle else rng.uniform(0.4, 1.0) * BUSY_BYTES_PER_S)
        rates["handoff_bytes"] = 180e6 * rng.uniform(0.9, 1.1) if odd.waiting_bytes else 0.0
        return {
            "id": self.name(number),
            "host": f"10.0.{number // 250}.{number % 250 + 1}",
            "zone": "abc"[number % 3],
            "state": odd.state,
            "weight": self._weight(number),
            "weight_source": "auto" if odd.weight is None else "override",
            "share": share,
            "owned_capacity_bytes": capacity,
            "cached_bytes": used + memory,
            "version": "0.1.0",
            "seen_epoch": self.epoch - is_away,
            "told_at": self.now_s - (184 if is_away else rng.uniform(0, 2)),
            "rates": rates,
            "hit_ratio": None if is_idle else rng.uniform(0.94, 0.995),
            "handoff_waiting_bytes": max(0, odd.waiting_bytes - int(self.tick * 360e6)),
            "inflight_bytes": int(rng.uniform(0, 320e6)),
            "tiers": [
                _tier("/mnt/memory/penstock", "memory", memory, 48 * 10**9),
                _tier("/mnt/nvme0/penstock", "owned", used, capacity),
            ],
        }

    def _total(self, nodes: list[Document]) -> Document:
        rates = [node["rates"] for node in nodes]
        total: Document = {
            name: {key: sum(each[name][key] for each in rates) for key in value}
            if isinstance(value, dict)
            else sum(each[name] for each in rates)
            for name, value in rates[0].items()
        }
        read = sum(total["read_bytes"].values())
        return {
            "rates": total,
            "hit_ratio": 1 - total["read_bytes"]["origin"] / read if read else None,
            "cached_bytes": sum(node["cached_bytes"] for node in nodes),
            "owned_capacity_bytes": sum(node["owned_capacity_bytes"] for node in nodes),
            "nodes": len(nodes),
            "away": sum(node["state"] == "away" for node in nodes),
        }

    def _warmup(self, number: int) -> Document:
        url, size, _ = _MODELS[number % len(_MODELS)]
        chunks = int(size / CHUNK_BYTES)
        done = min(chunks, int(chunks * (0.31 + 0.17 * number) + self.tick * 40))
        return {
            "node": self.name(number % self.nodes),
            "name": url.removeprefix("penstock://"),
            "chunks": chunks,
            "chunks_done": done,
            "bytes": int(size),
            "bytes_done": done * CHUNK_BYTES,
            "started_at": BEGIN_S - 140 - 30 * number,
        }

    def _model(self, number: int) -> Document:
        url, size, gigabytes = _MODELS[number]
        jitter = _chance(self.seed, self.tick, "model", number).uniform(0.95, 1.05)
        return {
            "url": url,
            "bytes": int(size),
            "held_bytes": int(size * (1.0 if number % 3 else 0.82)),
            "copies": 1 + number % 2,
            "read_bytes_per_s": gigabytes * 1e9 * jitter * self.nodes / 1000,
        }

    def _object(self, url: str, chunks: int, rng: random.Random) -> Document:
        copies = min(2, self.nodes)
        owners = [rng.sample(range(self.nodes), copies) for _ in range(chunks)]
        return {
            "url": url,
            "version": f"{rng.getrandbits(64):016x}",
            "size": chunks * CHUNK_BYTES - 1_234,
            "chunk_size": CHUNK_BYTES,
            "chunks": [[own, self._holders(own, rng)] for own in owners],
        }

    def _holders(self, owners: list[int], rng: random.Random) -> list[int]:
        chance = rng.random()
        if chance < 0.02:
            return []
        if chance < 0.03:
            return [rng.randrange(self.nodes)]
        return owners if chance < 0.93 else owners[:1]


def _chance(*seed: object) -> random.Random:
    return random.Random(repr(seed))  # noqa: S311 - no secret comes of it.


def _rates(rng: random.Random, read_bytes: float) -> Document:
    def parts(of: Mapping[str, float]) -> dict[str, float]:
        return {name: read_bytes * part * rng.uniform(0.9, 1.1) for name, part in of.items()}

    return {
        "read_bytes": parts(SOURCES),
        "served_bytes": parts(PLANES),
        "origin_bytes": read_bytes * 0.03,
        "origin_requests": read_bytes * 0.03 / CHUNK_BYTES,
        "failures": 0.0,
        "evicted_bytes": read_bytes * 0.02,
        "handoff_bytes": 0.0,
    }


def _tier(path: str, role: str, used_bytes: int, capacity_bytes: int) -> Document:
    return {
        "path": path,
        "role": role,
        "used_bytes": used_bytes,
        "capacity_bytes": capacity_bytes,
        "is_healthy": True,
    }
