-- Containers, gateways and VLANs of networks; ranges of nodes.

ALTER TABLE network
    ADD COLUMN kind text NOT NULL DEFAULT 'active' CHECK (kind IN ('container', 'active')),
    ADD COLUMN gateway inet,
    ADD COLUMN vlan integer CHECK (vlan BETWEEN 1 AND 4094),
    ADD CONSTRAINT gateway_lies_in_the_network CHECK (gateway <<= prefix),
    ADD CONSTRAINT container_is_not_wired CHECK (kind = 'active' OR (gateway IS NULL AND vlan IS NULL)),
    DROP CONSTRAINT networks_are_disjoint,
    ADD CONSTRAINT active_networks_are_disjoint EXCLUDE USING gist (prefix inet_ops WITH &&) WHERE (kind = 'active');

CREATE TABLE node_range (
    pool text NOT NULL REFERENCES pool,
    node text NOT NULL,
    position integer NOT NULL,
    first inet NOT NULL,
    last inet NOT NULL,
    PRIMARY KEY (pool, node, position),
    CONSTRAINT range_is_ascending CHECK (family(first) = family(last) AND first <= last)
);
