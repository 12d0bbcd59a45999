-- How much a VM gets of an IPv6 block of a pool. What it holds is named by one address still; with the length that is the
-- pool's, whatever a writer believes, no address is one VM's and lies in another one's prefix.

ALTER TABLE pool
    ADD COLUMN ipv6_length smallint NOT NULL DEFAULT 128 CHECK (ipv6_length BETWEEN 48 AND 128),
    ADD CONSTRAINT pool_with_length UNIQUE (name, ipv6_length);

ALTER TABLE allocation
    ADD COLUMN prefix cidr,
    ADD COLUMN ipv6_length smallint
        GENERATED ALWAYS AS (CASE family(address) WHEN 6 THEN coalesce(masklen(prefix), 128) END) STORED,
    ADD CONSTRAINT length_is_that_of_the_pool FOREIGN KEY (pool, ipv6_length) REFERENCES pool (name, ipv6_length),
    ADD CONSTRAINT prefix_is_named_by_its_first_address CHECK (address = host(prefix)::inet + 1);

ALTER TABLE history ADD COLUMN prefix cidr;

CREATE INDEX history_of_prefix ON history USING gist (prefix inet_ops) WHERE prefix IS NOT NULL;
