"""Looking at a cluster as it works: the overview's calls as a small typed class."""

import time
from collections.abc import Callable

from penstock.membership.nodes import Nodes
from penstock.overview import History, Overview
from penstock.overview_messages import (
    GET_OVERVIEW,
    HISTORY,
    history_from_proto,
    overview_from_proto,
)
from penstock.v1 import overview_pb2

GATHER_TIMEOUT_S = 5.0
"""How long `Overviews.gathered` waits for nodes that have not told anything of late."""
LATE_S = 15.0
"""What was told longer ago is not of late: rates are over 10 s."""
GATHER_POLL_S = 0.1
HISTORY_TIMEOUT_S = 15.0


class Overviews:
    """What a cluster does at this moment. Thread-safe; see `penstock.operator`."""

    def __init__(
        self,
        nodes: Nodes,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._nodes = nodes
        self._clock, self._sleep = clock, sleep

    def now(self) -> Overview:
        """Return what one node has gathered, at once; asking has it gather for half a minute.

        Raises:
            ClusterUnavailable: No node answers.
        """
        answer = self._nodes.call(GET_OVERVIEW, overview_pb2.GetOverviewRequest())
        return overview_from_proto(answer)

    def gathered(self) -> Overview:
        """As `now`, but wait until all that are there have told of themselves of late, or 5 s."""
        overview, give_up_at = self.now(), self._clock() + GATHER_TIMEOUT_S
        while self._clock() < give_up_at:
            if _is_whole(overview):
                break
            self._sleep(GATHER_POLL_S)
            overview = self.now()
        return overview

    def history(self, node: str = "") -> History:
        """Return the last hour of a node, or without one of the cluster.

        Raises:
            InvalidRequest: There is no such node.
            NodeUnavailable: It does not answer.
        """
        request = overview_pb2.HistoryRequest(node=node)
        answer = self._nodes.call(HISTORY, request, timeout_s=HISTORY_TIMEOUT_S)
        return history_from_proto(answer)


def _is_whole(overview: Overview) -> bool:
    """Tell whether all nodes told, and something is known of each model that is read."""
    have_told = all(node.told_at > overview.at - LATE_S for node in overview.there)
    return have_told and all(model.bytes for model in overview.models)
