"""Postgres, the truth: rows in, rows out, one transaction per batch."""
