"""The command line's other half: the API's client, the live view of a run, and how things are printed."""
