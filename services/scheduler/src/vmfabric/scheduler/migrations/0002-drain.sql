-- What an operator wants of the node's VMs, and what was said of it last; null: nothing.
ALTER TABLE node ADD COLUMN drain jsonb;
