-- Why its node was chosen; null when an older scheduler chose it.
ALTER TABLE vm ADD COLUMN decision jsonb;
-- The names of its groups. Most VMs have none, and are not in the index.
ALTER TABLE vm ADD COLUMN groups jsonb
    GENERATED ALWAYS AS (jsonb_path_query_array(record, '$.request.groups[*].group')) STORED;
CREATE INDEX vm_groups ON vm USING gin (groups) WHERE groups <> '[]';
