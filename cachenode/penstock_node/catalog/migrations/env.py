"""Runs the steps over the connection that `Database.upgrade` gives; called by Alembic."""

from alembic import context

from penstock_node.catalog.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transaction_per_migration=False,
)
context.run_migrations()
