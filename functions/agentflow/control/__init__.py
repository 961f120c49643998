"""The API: REST, authentication and the registry of workflows."""
