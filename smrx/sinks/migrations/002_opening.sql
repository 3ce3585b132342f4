-- Books that begin in the middle of the stream: every row of the state image stands at one event, and the checkpoint
-- says (as JSON) which event that is and who attested the state.

ALTER TABLE movements DROP CONSTRAINT movements_pkey;
ALTER TABLE movements ADD PRIMARY KEY (event_sequence, account, asset_id);
ALTER TABLE movements DROP CONSTRAINT movements_kind_check;
ALTER TABLE movements ADD CONSTRAINT movements_kind_check CHECK (kind IN ('OPENING', 'DEPOSITED', 'WITHDRAWN'));

ALTER TABLE definitions DROP CONSTRAINT definitions_pkey;
ALTER TABLE definitions ADD PRIMARY KEY (event_sequence, kind, id);

ALTER TABLE checkpoint ADD COLUMN origin text;
