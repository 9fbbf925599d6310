"""What a run may claim, and the ledger that records what it spent."""
