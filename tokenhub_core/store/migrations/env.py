"""What Alembic runs when it is asked for a migration: works on the connection that `store.upgrade` hands over.

Alembic executes this file; nothing imports it. Logging is left as the program configured it.
"""

from __future__ import annotations

from alembic import context

from tokenhub_core.store.schema import METADATA

context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
