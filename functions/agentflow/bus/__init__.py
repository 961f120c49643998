"""JetStream, the road: publish, pull, acknowledge, park."""
