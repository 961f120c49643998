"""The API: REST, authentication and the registry of workflows.

Starlette, not FastAPI: FastAPI costs 400 ms more at import (measured), which every cold start would pay, and
one literal route table gives both the routes and the OpenAPI document here.
"""
