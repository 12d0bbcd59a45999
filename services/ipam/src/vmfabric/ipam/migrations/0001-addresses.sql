-- Networks, pools, leases, allocations, history, outbox.

CREATE TABLE network (
    name text PRIMARY KEY,
    prefix cidr NOT NULL,
    note text NOT NULL,
    CONSTRAINT networks_are_disjoint EXCLUDE USING gist (prefix inet_ops WITH &&)
);

CREATE TABLE pool (
    name text PRIMARY KEY,
    cluster text NOT NULL,
    quarantine_seconds integer NOT NULL CHECK (quarantine_seconds >= 0)
);

CREATE TABLE block (
    pool text NOT NULL REFERENCES pool,
    position integer NOT NULL,
    prefix cidr NOT NULL,
    PRIMARY KEY (pool, position),
    CONSTRAINT blocks_are_disjoint EXCLUDE USING gist (prefix inet_ops WITH &&)
);

CREATE TABLE exclusion (
    pool text NOT NULL REFERENCES pool,
    position integer NOT NULL,
    prefix cidr NOT NULL,
    PRIMARY KEY (pool, position)
);

CREATE TABLE lease (
    cluster text NOT NULL,
    vm text NOT NULL,
    node text NOT NULL,
    generation bigint NOT NULL CHECK (generation >= 1),
    state text NOT NULL CHECK (state IN ('held', 'releasing', 'let-go', 'released')),
    since timestamptz NOT NULL,
    PRIMARY KEY (cluster, vm)
);

CREATE INDEX lease_fences ON lease (since) WHERE state = 'released';

-- An address that a VM holds, or that rests after it was held. inet keeps host bits apart from the mask, so without
-- the check 10.0.0.1 and 10.0.0.1/24 would be two addresses, and so would 10.0.0.1 and ::ffff:10.0.0.1.
CREATE TABLE allocation (
    address inet PRIMARY KEY,
    pool text NOT NULL REFERENCES pool,
    cluster text NOT NULL,
    vm text NOT NULL,
    node text NOT NULL,
    generation bigint NOT NULL,
    position smallint NOT NULL,
    since timestamptz NOT NULL,
    rests_until timestamptz,
    CONSTRAINT address_is_a_host CHECK (masklen(address) = CASE family(address) WHEN 4 THEN 32 ELSE 128 END),
    CONSTRAINT address_is_not_v4_mapped CHECK (NOT address <<= '::ffff:0:0/96')
);

CREATE INDEX allocation_of_vm ON allocation (cluster, vm);
CREATE INDEX allocation_of_pool ON allocation (pool);

CREATE TABLE history (
    id bigserial PRIMARY KEY,
    address inet NOT NULL,
    at timestamptz NOT NULL,
    what text NOT NULL CHECK (what IN ('allocated', 'released', 'freed')),
    cluster text NOT NULL,
    vm text NOT NULL,
    node text NOT NULL,
    generation bigint NOT NULL
);

CREATE INDEX history_of_address ON history (address, id DESC);
CREATE INDEX history_by_age ON history USING brin (at);

CREATE TABLE outbox (
    id bigserial PRIMARY KEY,
    subject text NOT NULL,
    headers jsonb NOT NULL,
    body bytea NOT NULL
);
