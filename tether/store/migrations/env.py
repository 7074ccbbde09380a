"""What Alembic runs to migrate: on the connection, and in the transaction, that its caller holds."""

from alembic import context

from tether.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
