"""Create ledgers for a run that follows the stream: empty, from a checkpoint, from a state image."""

from smrx.settlement.image_books import books_of, rows_of
from smrx.settlement.ledger import Ledger
from smrx.sinks.rows import Tables
from smrx.wire.state_image import StateImage


class LedgerFactory:
    """Implements ProjectionFactory with the ledger."""

    def empty(self) -> Ledger:
        """See ProjectionFactory."""
        return Ledger()

    def load(self, data: bytes) -> Ledger:
        """See ProjectionFactory."""
        return Ledger.load(data)

    def from_image(self, image: StateImage) -> Ledger:
        """See ProjectionFactory."""
        return books_of(image)

    def image_rows(self, image: StateImage) -> Tables:
        """See ProjectionFactory."""
        return rows_of(image)
