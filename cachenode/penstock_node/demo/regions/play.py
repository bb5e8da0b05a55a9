"""The demo of two regions, from its first act to its last claim.

Responsible for: the order of acts, and their titles.
Not responsible for: the scene's start and end (`command`).
"""

from penstock_node.demo.regions import acts, tables
from penstock_node.demo.regions.figures import (
    Copy,
    CutOff,
    FarReads,
    Figures,
    Import,
    NewVersion,
    Parts,
)
from penstock_node.demo.regions.scene import Regions
from penstock_node.demo.stage import Stage


class RegionsPlay:
    """The acts over two regions; each can be played once, in order."""

    def __init__(self, scene: Regions, stage: Stage) -> None:
        self._scene, self._stage = scene, stage

    def play(self) -> Figures:
        """Start the scene, play all acts, and return what was measured.

        Raises:
            PartFailed: A part did not do what the demo needs.
            PenstockError: A call failed that should not.
        """
        figures = Figures(
            parts=self._parts(),
            imported=self._import(),
            far_reads=self._far_reads(),
            copy=self._copy(),
            new_version=(new_version := self._new_version()),
            cut_off=self._cut_off(new_version.sha256),
            model_bytes=self._scene.model.size_bytes,
        )
        self._stage.show(*tables.summary(figures))
        return figures

    def _parts(self) -> Parts:
        return self._stage.act(
            1,
            "The parts",
            "All that the west asks of the east goes over the link, which counts its bytes.",
            lambda: acts.start_parts(self._scene),
            tables.parts_table,
        )

    def _import(self) -> Import:
        return self._stage.act(
            2,
            "An import in the east, mirrored in the west",
            "The catalog learns which files there are; no data is read, copied or moved.",
            lambda: acts.import_and_mirror(self._scene),
            tables.import_table,
        )

    def _far_reads(self) -> FarReads:
        return self._stage.act(
            3,
            "Reads in the far region",
            "Without a copy bytes cross the link when first read, and then never again.",
            lambda: acts.read_from_afar(self._scene),
            tables.far_reads_table,
        )

    def _copy(self) -> Copy:
        return self._stage.act(
            4,
            "A copy in the far region's own store",
            "The mirror copies what a rule covers. Then caches are emptied, and it is read.",
            lambda: acts.copy_and_read(self._scene),
            tables.copy_table,
        )

    def _new_version(self) -> NewVersion:
        return self._stage.act(
            5,
            "A new version at the source",
            "Written to the east's bucket and imported there; nobody does anything more.",
            lambda: acts.change_at_the_source(self._scene),
            tables.new_version_table,
        )

    def _cut_off(self, sha256: str) -> CutOff:
        return self._stage.act(
            6,
            "The link is cut",
            "The west lists all, and reads what it has: cached, and with empty caches.",
            lambda: acts.cut_the_link(self._scene, sha256=sha256),
            tables.cut_off_table,
        )
