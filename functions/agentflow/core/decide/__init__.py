"""One pure decision per function, by the function's name; ``record`` is shared by the effect functions."""
