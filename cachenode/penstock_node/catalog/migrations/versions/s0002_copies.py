"""What a mirror has brought into its region, and who does that."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

_PATH = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables of mirrors."""
    op.create_table(
        "copies",
        sa.Column("volume_id", sa.Integer, sa.ForeignKey("volumes.id"), primary_key=True),
        sa.Column("path", _PATH, primary_key=True),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("copy_version", sa.Text, nullable=False),
    )
    op.create_table(
        "brought",
        sa.Column("volume_id", sa.Integer, sa.ForeignKey("volumes.id"), primary_key=True),
        sa.Column("rules", sa.Text, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
    )
    fence = op.create_table(
        "fence",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("token", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(fence, [{"id": 0, "token": 0}])
