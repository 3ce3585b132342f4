-- Trades, movements of money and definitions, each once; money in minimal units of its asset.
-- The checkpoint is one row: it changes in the transaction that brings the rows it covers.

CREATE TABLE trades (
    match_id         bigint PRIMARY KEY,
    event_sequence   bigint NOT NULL UNIQUE,
    command_sequence bigint NOT NULL,
    time_ns          bigint NOT NULL,
    instrument       text   NOT NULL,
    price_ticks      bigint NOT NULL,
    quantity_lots    bigint NOT NULL,
    notional         bigint NOT NULL,
    taker_side       text   NOT NULL CHECK (taker_side IN ('BUY', 'SELL')),
    taker_order_id   bigint NOT NULL,
    taker_account    bigint NOT NULL,
    taker_fee        bigint NOT NULL,
    maker_order_id   bigint NOT NULL,
    maker_account    bigint NOT NULL,
    maker_fee        bigint NOT NULL,
    instrument_id    bigint NOT NULL
);

CREATE INDEX trades_taker_order ON trades (taker_order_id);
CREATE INDEX trades_maker_order ON trades (maker_order_id);
CREATE INDEX trades_taker_account ON trades (taker_account, match_id);
CREATE INDEX trades_maker_account ON trades (maker_account, match_id);

CREATE TABLE movements (
    event_sequence   bigint PRIMARY KEY,
    command_sequence bigint NOT NULL,
    time_ns          bigint NOT NULL,
    kind             text   NOT NULL CHECK (kind IN ('DEPOSITED', 'WITHDRAWN')),
    account          bigint NOT NULL,
    asset            text   NOT NULL,
    amount           bigint NOT NULL,
    available_after  bigint NOT NULL,
    transfer_id      numeric(20) NOT NULL,
    asset_id         bigint NOT NULL
);

CREATE INDEX movements_account ON movements (account, event_sequence);

-- Columns that a kind of definition does not have are NULL.
CREATE TABLE definitions (
    event_sequence    bigint PRIMARY KEY,
    command_sequence  bigint NOT NULL,
    time_ns           bigint NOT NULL,
    kind              text   NOT NULL CHECK (kind IN ('ASSET_ADDED', 'INSTRUMENT_ADDED', 'RULES_SET')),
    id                bigint NOT NULL,
    symbol            text,
    decimals          bigint,
    supply_cap        bigint,
    base_asset        bigint,
    quote_asset       bigint,
    lot_units         bigint,
    scale_units       bigint,
    max_price_ticks   bigint,
    max_quantity_lots bigint,
    taker_fee         bigint,
    maker_fee         bigint,
    band_bp           bigint,
    min_price_ticks   bigint,
    min_notional      bigint,
    max_notional      bigint,
    min_quantity_lots bigint
);

CREATE TABLE checkpoint (
    only_row         boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    cluster          text   NOT NULL,
    event_sequence   bigint NOT NULL,
    command_sequence bigint NOT NULL,
    match_id         bigint NOT NULL,
    state_hash       numeric(20) NOT NULL
);
