"""The demo from its first act to its last claim.

Responsible for: the order of acts, and their titles.
Not responsible for: the scene's start and end (`command`).
"""

from penstock_node.demo import acts, tables
from penstock_node.demo.figures import (
    Crowd,
    Figures,
    Kill,
    Parts,
    Reads,
    Shares,
    WeightChange,
)
from penstock_node.demo.scene import Scene
from penstock_node.demo.stage import Stage


class Play:
    """The acts over one scene; each can be played once, in order."""

    def __init__(self, scene: Scene, stage: Stage) -> None:
        self._scene, self._stage = scene, stage

    def play(self) -> Figures:
        """Start the scene, play all acts, and return what was measured.

        Raises:
            PartFailed: A part did not do what the demo needs.
            PenstockError: A call failed that should not.
        """
        return Figures(
            parts=self._parts(),
            shares=self._shares(),
            reads=self._reads(),
            crowd=self._crowd(),
            weight_change=self._weight_change(),
            kill=self._kill(),
            model_bytes=self._scene.model.size_bytes,
        )

    def _parts(self) -> Parts:
        return self._stage.act(
            1,
            "The parts",
            "A real etcd, a real S3 server and three nodes, each a process of its own.",
            lambda: Parts(tuple(self._scene.start())),
            tables.parts_table,
        )

    def _shares(self) -> Shares:
        return self._stage.act(
            2,
            "Weights and shares",
            "A node's weight follows its capacity, and its share of the chunks its weight.",
            lambda: acts.show_shares(self._scene),
            tables.shares_table,
        )

    def _reads(self) -> Reads:
        return self._stage.act(
            3,
            "Cold and warm",
            "A cold read asks the object store for each chunk; a warm one asks for nothing.",
            lambda: acts.read_cold_and_warm(self._scene),
            tables.reads_table,
        )

    def _crowd(self) -> Crowd:
        return self._stage.act(
            4,
            f"{acts.READERS} processes at once",
            "With empty caches all start at one moment: each byte leaves the store once.",
            lambda: acts.read_in_a_crowd(self._scene),
            lambda crowd: tables.crowd_table(crowd, model_bytes=self._scene.model.size_bytes),
        )

    def _weight_change(self) -> WeightChange:
        return self._stage.act(
            5,
            "A weight changed live",
            f"{acts.CHANGED_NODE} gets the weight {acts.CHANGED_WEIGHT}: chunks that the dry run "
            "told, and that moved.",
            lambda: acts.change_weight(self._scene),
            tables.weight_table,
        )

    def _kill(self) -> Kill:
        return self._stage.act(
            6,
            "A node killed",
            f"{acts.KILLED_NODE} gets SIGKILL in the middle of a read: the next owners serve.",
            lambda: acts.kill_a_node(self._scene),
            tables.kill_table,
        )
