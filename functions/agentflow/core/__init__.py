"""Pure decisions: plans, planners and what a function does with an event. No I/O, clock or randomness."""
