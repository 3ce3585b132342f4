"""The independent double-entry book: what everybody owns and what their orders hold, from events alone, compiled."""
