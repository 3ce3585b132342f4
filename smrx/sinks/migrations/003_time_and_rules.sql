-- The time of each row beside its nanoseconds (rounded to microseconds, as timestamps of PostgreSQL are), and the rules
-- that instruments have since version 2 of the records.

ALTER TABLE trades ADD COLUMN time timestamptz;
UPDATE trades SET time = timestamptz 'epoch' + time_ns / 1000 * interval '1 microsecond';
ALTER TABLE trades ALTER COLUMN time SET NOT NULL;

ALTER TABLE movements ADD COLUMN time timestamptz;
UPDATE movements SET time = timestamptz 'epoch' + time_ns / 1000 * interval '1 microsecond';
ALTER TABLE movements ALTER COLUMN time SET NOT NULL;

ALTER TABLE definitions ADD COLUMN time timestamptz;
UPDATE definitions SET time = timestamptz 'epoch' + time_ns / 1000 * interval '1 microsecond';
ALTER TABLE definitions ALTER COLUMN time SET NOT NULL;
ALTER TABLE definitions ADD COLUMN collar_bp bigint;
ALTER TABLE definitions ADD COLUMN collar_reference bigint;
ALTER TABLE definitions ADD COLUMN rule_flags bigint;
