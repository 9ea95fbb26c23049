"""Runs the consent registry's migrations; called by alembic, with the registry's own drivers."""

import asyncio

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from secure_gateway.consent.tables import Base


def upgrade(connection: Connection) -> None:
    """Apply what is missing."""
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


async def main() -> None:
    """Connect and upgrade."""
    engine = create_async_engine(context.config.attributes["url"], hide_parameters=True)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(upgrade)
    finally:
        await engine.dispose()


asyncio.run(main())
