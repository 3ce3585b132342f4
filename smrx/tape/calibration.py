"""Statistics of a real day's order flow, as tables that the generator draws from.

Measured on AMZN, NASDAQ, 2012-06-21, five levels a side (LOBSTER's free sample); a test compares them with the
recording where it is available. These are statistics only, none of the data. Weights are per 10,000; the values of a
range are equally likely. One step of the flow is one message.
"""

from typing import Final, NamedTuple


class Range(NamedTuple):
    """Values low..high, both included, with their weight."""

    low: int
    high: int
    weight: int


#: Visible messages by kind: new order, partial cancellation, deletion, execution (155,934 less 2,444 hidden ones).
NEW: Final = 5041
PARTIAL_CANCEL: Final = 29
DELETE: Final = 4345
EXECUTION: Final = 585
#: Takers, that is runs of executions with one time and direction: 6,591 takers made the 8,974 executions.
TAKERS: Final = 430

#: The middle of the day's range, 221 to 226 dollars, in cents.
REFERENCE_PRICE_TICKS: Final = 22_320

#: Shares of a new order: mostly round lots, and a second peak between 15 and 21.
SIZES: Final = (
    Range(1, 5, 404), Range(6, 9, 554), Range(10, 10, 567), Range(11, 14, 318), Range(15, 21, 1802),
    Range(22, 49, 439), Range(50, 50, 46), Range(51, 99, 83), Range(100, 100, 4776), Range(101, 199, 109),
    Range(200, 200, 516), Range(201, 299, 13), Range(300, 300, 176), Range(400, 400, 126), Range(500, 500, 16),
    Range(501, 999, 42), Range(1000, 1000, 3), Range(1001, 5000, 10),
)  # fmt: skip
#: The share of round lots (multiples of 100) among sizes, for the test.
ROUND_LOTS: Final = 5653

#: By spread in ticks: the weight of a new order that improves the best price of its side.
IMPROVING_BY_SPREAD: Final = (
    Range(1, 1, 0), Range(2, 3, 1397), Range(4, 6, 1151), Range(7, 9, 1291), Range(10, 13, 1701),
    Range(14, 19, 1873), Range(20, 29, 2061), Range(30, 1 << 62, 4080),
)  # fmt: skip
#: Ticks by which such an order improves the best price.
IMPROVEMENT: Final = (
    Range(1, 1, 4650), Range(2, 2, 1667), Range(3, 3, 1066), Range(4, 4, 731), Range(5, 5, 484), Range(6, 6, 359),
    Range(7, 7, 234), Range(8, 8, 178), Range(9, 10, 253), Range(11, 13, 185), Range(14, 20, 129), Range(21, 40, 64),
)  # fmt: skip
#: Ticks behind the best price of its side for the other orders (0 joins the best price).
BEHIND: Final = (
    Range(0, 0, 2233), Range(1, 1, 1048), Range(2, 2, 1126), Range(3, 3, 762), Range(4, 4, 838), Range(5, 5, 780),
    Range(6, 6, 662), Range(7, 7, 559), Range(8, 8, 452), Range(9, 9, 375), Range(10, 10, 307), Range(11, 11, 309),
    Range(12, 12, 166), Range(13, 13, 124), Range(14, 14, 86), Range(15, 15, 59), Range(16, 16, 18),
    Range(17, 20, 46), Range(21, 35, 50),
)  # fmt: skip
#: The weight of new orders at the best price of their side or better, and quartiles of the spread, for the test.
AT_BEST_OR_BETTER: Final = 3600
SPREAD_QUARTILES_TICKS: Final = (9, 13, 17)

#: Messages between an order's arrival and its deletion, for orders that improved the best price of their side and for
#: the others.
IMPROVING_LIFETIMES: Final = (
    Range(1, 1, 1556), Range(2, 2, 1161), Range(3, 3, 936), Range(4, 4, 653), Range(5, 6, 980), Range(7, 9, 948),
    Range(10, 14, 893), Range(15, 22, 846), Range(23, 36, 782), Range(37, 62, 647), Range(63, 96, 304),
    Range(97, 150, 167), Range(151, 230, 63), Range(231, 500, 42), Range(501, 2000, 20),
)  # fmt: skip
LIFETIMES: Final = (
    Range(1, 1, 963), Range(2, 2, 724), Range(3, 3, 727), Range(4, 4, 539), Range(5, 6, 833), Range(7, 9, 843),
    Range(10, 14, 980), Range(15, 22, 1055), Range(23, 36, 1136), Range(37, 62, 1089), Range(63, 96, 570),
    Range(97, 150, 300), Range(151, 230, 135), Range(231, 500, 86), Range(501, 2000, 20),
)  # fmt: skip
#: Assumed, not measured: orders placed this far behind are outside the five recorded levels and have long lifetimes,
#: which makes the book deeper than the recorded one.
FAR_BEHIND_TICKS: Final = 12
FAR_LIFETIMES: Final = (Range(200, 4000, 10_000),)

#: Resting orders that one taker hits.
SWEEPS: Final = (
    Range(1, 1, 7706), Range(2, 2, 1598), Range(3, 3, 411), Range(4, 4, 155), Range(5, 5, 56), Range(6, 6, 29),
    Range(7, 7, 20), Range(8, 12, 20), Range(13, 28, 5),
)  # fmt: skip
#: The weight of takers that fill their last resting order only in part.
ENDING_IN_PART: Final = 3172
