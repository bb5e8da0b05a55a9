"""The catalog's configuration: read, checked and ready to use."""

from penstock_node.config_keys import CatalogKeys
from penstock_node.config_loaded import LoadedKeys, read_reference
from penstock_node.config_sources import Problem

DATABASE_FILE = "catalog.db"


class CatalogConfig(CatalogKeys, LoadedKeys):
    """What a catalog was told."""

    def problems(self) -> list[Problem]:
        """See `LoadedKeys`."""
        found = super().problems()
        if self.etcd and self.volumes:
            found.append(Problem(("volumes",), "with [etcd] they are the cluster's; take them out"))
        return found

    def resolve_events_token(self) -> str:
        """Return what senders of events have to show; empty when none is configured.

        Raises:
            InvalidConfiguration: There is no value where it should stand.
        """
        if self.events_token is None:
            return ""
        return read_reference(self.events_token, "events_token")

    @property
    def database_url(self) -> str:
        """Of the database: the one that is named, or a SQLite file in ``state_dir``."""
        return self.database or f"sqlite:///{self.state_dir / DATABASE_FILE}"
