"""The catalog's configuration: read, checked and ready to use."""

from penstock_node.config_keys import CatalogKeys
from penstock_node.config_loaded import LoadedKeys
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

    @property
    def database_url(self) -> str:
        """Of the database: the one that is named, or a SQLite file in ``state_dir``."""
        return self.database or f"sqlite:///{self.state_dir / DATABASE_FILE}"
