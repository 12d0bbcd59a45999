CREATE TABLE cluster (
    name text PRIMARY KEY,
    spec jsonb NOT NULL
);

CREATE TABLE node (
    cluster text NOT NULL REFERENCES cluster (name),
    name text NOT NULL,
    spec jsonb NOT NULL,
    state text NOT NULL DEFAULT 'applied' CHECK (state IN ('applied', 'joined', 'lost')),
    heard_at timestamptz,
    addresses inet[] NOT NULL DEFAULT '{}',
    used_cpu bigint NOT NULL DEFAULT 0 CHECK (used_cpu >= 0),
    used_memory_mb bigint NOT NULL DEFAULT 0 CHECK (used_memory_mb >= 0),
    used_disk_gb bigint NOT NULL DEFAULT 0 CHECK (used_disk_gb >= 0),
    vms bigint NOT NULL DEFAULT 0 CHECK (vms >= 0),
    PRIMARY KEY (cluster, name)
);

CREATE TABLE vm (
    cluster text NOT NULL,
    name text NOT NULL,
    node text NOT NULL,
    generation bigint NOT NULL UNIQUE,
    phase text NOT NULL,
    due timestamptz,
    record jsonb NOT NULL,
    PRIMARY KEY (cluster, name),
    FOREIGN KEY (cluster, node) REFERENCES node (cluster, name)
);
CREATE INDEX vm_due ON vm (due) WHERE due IS NOT NULL;
CREATE INDEX vm_node ON vm (cluster, node);

-- Where the last request that was served for a VM that is not there stands in the order of the bus: a late
-- repetition of it stands at the same place, or before.
CREATE TABLE last_request (
    cluster text NOT NULL,
    name text NOT NULL,
    at timestamptz NOT NULL,
    sequence bigint NOT NULL,
    PRIMARY KEY (cluster, name)
);
CREATE INDEX last_request_at ON last_request (at);

CREATE SEQUENCE generation;

CREATE TABLE outbox (
    id bigserial PRIMARY KEY,
    subject text NOT NULL,
    headers jsonb NOT NULL,
    body bytea NOT NULL
);
