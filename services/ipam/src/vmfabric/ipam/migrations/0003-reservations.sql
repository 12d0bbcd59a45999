-- Addresses that are kept for somebody, whether a VM has them or not; and their history.

CREATE TABLE reservation (
    address inet PRIMARY KEY,
    pool text NOT NULL REFERENCES pool,
    cluster text NOT NULL,
    owner text NOT NULL,
    note text NOT NULL,
    since timestamptz NOT NULL,
    expires_at timestamptz,
    for_vm text,
    node text,
    CONSTRAINT reserved_address_is_a_host CHECK (masklen(address) = CASE family(address) WHEN 4 THEN 32 ELSE 128 END),
    CONSTRAINT reserved_address_is_not_v4_mapped CHECK (NOT address <<= '::ffff:0:0/96')
);

CREATE INDEX reservation_of_pool ON reservation (pool);

ALTER TABLE history
    ADD COLUMN owner text,
    ADD COLUMN note text NOT NULL DEFAULT '',
    ALTER COLUMN vm DROP NOT NULL,
    ALTER COLUMN node DROP NOT NULL,
    ALTER COLUMN generation DROP NOT NULL,
    DROP CONSTRAINT history_what_check,
    ADD CONSTRAINT history_what_check
        CHECK (what IN ('allocated', 'released', 'freed', 'reserved', 'unreserved', 'expired')),
    ADD CONSTRAINT history_of_a_vm_names_it
        CHECK (owner IS NOT NULL OR (vm IS NOT NULL AND node IS NOT NULL AND generation IS NOT NULL));
