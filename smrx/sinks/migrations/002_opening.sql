-- Books that start from a state image: every row of the image has the same event, and the checkpoint names (as JSON)
-- that event and the nodes that attested the image.

ALTER TABLE movements DROP CONSTRAINT movements_pkey;
ALTER TABLE movements ADD PRIMARY KEY (event_sequence, account, asset_id);
ALTER TABLE movements DROP CONSTRAINT movements_kind_check;
ALTER TABLE movements ADD CONSTRAINT movements_kind_check CHECK (kind IN ('OPENING', 'DEPOSITED', 'WITHDRAWN'));

ALTER TABLE definitions DROP CONSTRAINT definitions_pkey;
ALTER TABLE definitions ADD PRIMARY KEY (event_sequence, kind, id);

ALTER TABLE checkpoint ADD COLUMN origin text;
