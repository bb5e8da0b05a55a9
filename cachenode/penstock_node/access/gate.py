"""The gate before all calls, whatever carries them: may this caller make this one?

Responsible for: the decision, counting refusals, and the record of what writers and operators do.
Not responsible for: how a call and its credential travel (`serve`).
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from penstock.errors import NotPermitted, PenstockError
from penstock.volumes import Volumes
from penstock_node.access.audit import Audit
from penstock_node.access.callers import Callers
from penstock_node.access.grants import Grant
from penstock_node.access.methods import RULES, Rule

EVERYBODY = "anyone"
"""Who made a call where nobody is asked who he is, and no certificate tells it."""
UNKNOWN = "unknown"


class Gate:
    """See the module. On the event loop."""

    def __init__(
        self,
        callers: Callers | None,
        *,
        volumes: Callable[[], Volumes] = Volumes,
        audit_file: Path | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            callers: Knows them; None: everybody who reaches this process may do everything.
            volumes: Returns the cluster's, as they are now.
            audit_file: See `Audit`, as for what is raised.
        """
        self.callers = callers
        self._volumes = volumes
        self.audit = Audit(audit_file)

    def rule(self, method: str) -> Rule | None:
        """Return the rule of ``Service/Method``; None: it is in no table."""
        return RULES.get(method)

    async def admit(self, method: str, request: Any, authorization: str, *, plane: str) -> Grant:
        """Return who makes a call, if he may; see `identify` and `check`."""
        grant = await self.identify(authorization, plane=plane)
        self.check(method, request, grant, plane=plane)
        return grant

    async def identify(self, authorization: str, *, plane: str) -> Grant:
        """Return who shows a header; only where callers are asked who they are.

        Args:
            authorization: The header; "" for none.
            plane: What carries the call.

        Raises:
            Unauthenticated: Nobody who is known.
            PenstockError: What else `Callers.identify` raises.
        """
        assert self.callers is not None, "everybody may do everything"
        with self._counting(plane):
            return await self.callers.identify(authorization)

    def check(self, method: str, request: Any, grant: Grant, *, plane: str) -> None:
        """Refuse what ``grant`` does not cover.

        Args:
            method: ``Service/Method``.
            request: Its message.
            grant: Who makes the call.
            plane: What carries it.

        Raises:
            NotPermitted: It asks for another role, or for other volumes.
        """
        with self._counting(plane):
            self._check(method, request, grant)

    @contextlib.contextmanager
    def _counting(self, plane: str) -> Iterator[None]:
        try:
            yield
        except PenstockError as error:
            if self.callers is not None:
                self.callers.count_refusal(plane, error)
            raise

    def _check(self, method: str, request: Any, grant: Grant) -> None:
        rule = self.rule(method)
        if rule is None:
            raise NotPermitted(f"{method} is in no table of who may call it")
        least = rule.least(request)
        if grant.role < least:
            raise NotPermitted(
                f"{method} asks for the role {least}, and {grant.name} is a {grant.role}"
            )
        if grant.is_limited:
            self._check_volumes(rule, method, request, grant)

    def _check_volumes(self, rule: Rule, method: str, request: Any, grant: Grant) -> None:
        if rule.is_of_all:
            raise grant.refusal(f"{method}, which is about the whole cluster")
        for find in rule.finds:
            for volume in find(request, self._volumes):
                grant.check_volume(volume)

    def note(
        self, method: str, request: Any, grant: Grant | None, *, who: str, peer: str, outcome: str
    ) -> None:
        """Write what became of a call into the record."""
        rule = self.rule(method)
        unknown = who if self.callers is None else UNKNOWN
        self.audit.note(
            who=grant.name if grant else unknown,
            role=str(grant.role) if grant else "",
            peer=peer,
            method=method.replace("/", "."),
            about=rule.names(request) if rule is not None else (),
            outcome=outcome,
        )

    def close(self) -> None:
        """Write the record to its end."""
        self.audit.close()
