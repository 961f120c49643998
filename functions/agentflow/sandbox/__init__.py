"""Where tool code runs: gVisor, Docker and plain-process drivers behind one protocol."""
