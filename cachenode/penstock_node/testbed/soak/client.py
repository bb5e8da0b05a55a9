"""A process that works all the time: one of the clients of a soak, ended by SIGTERM.

    python -m penstock_node.testbed.soak.client SPEC

Responsible for: connecting as its kind of program does, its threads, and telling how far it is.
"""

import asyncio
import json
import random
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import fsspec

import penstock
from penstock_node.testbed.soak.async_work import AsyncWork
from penstock_node.testbed.soak.contents import Contents
from penstock_node.testbed.soak.edge_work import EdgeWork
from penstock_node.testbed.soak.tally import Tally
from penstock_node.testbed.soak.work import LibraryWork, Works, work_on

THREADS = 2
TELL_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class ClientSpec:
    """What a client is told."""

    kind: str
    name: str
    seed: int
    address: str
    gateways: tuple[str, ...]
    directory: str
    pause_s: float
    mount: str = ""

    def as_json(self) -> str:
        """Return it as an argument."""
        return json.dumps(asdict(self))

    @property
    def told_file(self) -> Path:
        """Where the client tells what it has done."""
        return Path(self.directory) / f"{self.name}.json"


class Client:
    """One of them."""

    def __init__(self, spec: ClientSpec) -> None:
        self._spec = spec
        self._stop = threading.Event()
        self._directory = Path(spec.directory)
        self._contents = Contents(spec.seed, self._directory)
        self._tally = Tally(spec.told_file)

    def run(self) -> None:
        """Work until told to end."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        working = threading.Thread(target=KINDS[self._spec.kind], args=(self,), name="working")
        working.start()
        while not self._stop.wait(TELL_EVERY_S):
            self._tally.tell()
        working.join()
        self._tally.tell()

    def _chance(self, number: int) -> random.Random:
        return random.Random(f"{self._spec.seed}/{self._spec.name}/{number}")  # noqa: S311

    def library(self, *, here: bool) -> None:
        """Be a program that reads through the library, ``here`` with the node of this machine."""
        with penstock.connect(self._spec.address) as cache:
            works = [self._library_work(cache, number) for number in range(THREADS)]
            self._in_threads([work.works_here() if here else work.works() for work in works])

    def _library_work(self, cache: penstock.Cache, number: int) -> LibraryWork:
        return LibraryWork(
            cache,
            self._contents,
            self._tally,
            rng=self._chance(number),
            name=f"{self._spec.name}-{number}",
            scratch=self._directory,
        )

    def over_asyncio(self) -> None:
        """Be a program over asyncio."""
        work = AsyncWork(self._contents, self._tally, rng=self._chance(0), stop=self._stop)
        asyncio.run(work.run(self._spec.address, pause_s=self._spec.pause_s))

    def edges(self) -> None:
        """Be a program that knows nothing of the library, or not much."""
        files = fsspec.filesystem("penstock", address=self._spec.address)
        with penstock.connect(self._spec.address, plane="grpc") as cache:
            works = [
                EdgeWork(
                    self._contents,
                    self._tally,
                    rng=self._chance(number),
                    gateways=self._spec.gateways,
                    grpc=cache,
                    files=files,
                    mount=Path(self._spec.mount) if self._spec.mount else None,
                )
                for number in range(THREADS)
            ]
            self._in_threads([work.works() for work in works])

    def _in_threads(self, works: list[Works]) -> None:
        threads = [
            threading.Thread(
                target=work_on,
                args=(each,),
                kwargs={
                    "rng": self._chance(100 + number),
                    "tally": self._tally,
                    "stop": self._stop,
                    "pause_s": self._spec.pause_s,
                },
            )
            for number, each in enumerate(works)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


KINDS: Final[Mapping[str, Callable[[Client], None]]] = {
    "library": lambda client: client.library(here=False),
    "host": lambda client: client.library(here=True),
    "asyncio": Client.over_asyncio,
    "edges": Client.edges,
}


if __name__ == "__main__":
    Client(ClientSpec(**json.loads(sys.argv[1]))).run()
