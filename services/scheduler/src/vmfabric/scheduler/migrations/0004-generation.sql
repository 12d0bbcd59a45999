-- A row instead of the sequence: what is in the log of a sequence is up to 32 numbers ahead of what was handed out, so a
-- standby that was behind would not know that it is.
CREATE TABLE last_generation (
    generation bigint NOT NULL,
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only)
);
INSERT INTO last_generation SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM generation;
DROP SEQUENCE generation;
