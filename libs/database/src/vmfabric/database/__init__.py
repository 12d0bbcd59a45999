"""Postgres for the services of the control plane: pool, migrations, outbox, writer lock."""
