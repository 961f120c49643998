"""Contracts on the wire: the event catalogue, the CloudEvents codec and document validation."""
