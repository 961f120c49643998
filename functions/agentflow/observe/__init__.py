"""Seen from outside: logs, spans and metrics. Ids and numbers only, never secrets or payloads."""
