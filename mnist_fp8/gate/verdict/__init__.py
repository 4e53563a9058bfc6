"""Two records, and a verdict: pure functions of stored data."""
