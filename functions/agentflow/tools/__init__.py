"""Tool kinds behind one protocol."""
