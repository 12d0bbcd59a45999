-- Networks in which VMs are neighbours: their own and their broadcast addresses are given to none.

ALTER TABLE network
    ADD COLUMN segment boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT container_is_not_wired,
    ADD CONSTRAINT container_is_not_wired
        CHECK (kind = 'active' OR (gateway IS NULL AND vlan IS NULL AND NOT segment));
