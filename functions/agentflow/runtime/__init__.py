"""Hosts: the reactor, performers, relay, bridge and the embedded stack."""
