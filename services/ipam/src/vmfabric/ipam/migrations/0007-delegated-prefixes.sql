-- How much a VM gets of an IPv6 block of a pool; what it holds is named by one address still.

ALTER TABLE pool ADD COLUMN ipv6_length smallint NOT NULL DEFAULT 128 CHECK (ipv6_length BETWEEN 48 AND 128);
