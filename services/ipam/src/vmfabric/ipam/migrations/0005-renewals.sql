-- A reservation that its owner makes again goes on: that is no beginning.

ALTER TABLE history
    DROP CONSTRAINT history_what_check,
    ADD CONSTRAINT history_what_check
        CHECK (what IN ('allocated', 'released', 'freed', 'reserved', 'renewed', 'unreserved', 'expired'));

UPDATE history SET what = 'renewed'
FROM (
    SELECT id, what, owner, lag(what) OVER before AS what_before, lag(owner) OVER before AS owner_before
    FROM history WHERE owner IS NOT NULL WINDOW before AS (PARTITION BY address ORDER BY id)
) AS entry
WHERE entry.id = history.id AND (entry.what, entry.what_before) = ('reserved', 'reserved')
  AND entry.owner = entry.owner_before;
