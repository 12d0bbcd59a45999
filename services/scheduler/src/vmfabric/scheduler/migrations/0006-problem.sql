-- Why no VM can work on a node, by its node-agent; null when the node itself is as it should be.
ALTER TABLE node ADD COLUMN problem text;
