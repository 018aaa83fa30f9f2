"""Run by Alembic for each upgrade, on the connection and within the transaction that opening.py began."""

from alembic import context

from proxy.ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
