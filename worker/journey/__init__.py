"""The steps of a command, in order: from bytes to an answer. No I/O but the transaction that a step is given."""
