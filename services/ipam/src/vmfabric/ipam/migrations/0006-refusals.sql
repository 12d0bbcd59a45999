-- Why a VM was refused its addresses, so that the same placement has the same answer again.

ALTER TABLE lease
    ADD COLUMN refused_code text,
    ADD COLUMN refused_because text,
    ADD CONSTRAINT refused_lease_holds_nothing CHECK (refused_code IS NULL OR state = 'released'),
    ADD CONSTRAINT refusal_has_a_reason CHECK ((refused_code IS NULL) = (refused_because IS NULL));
