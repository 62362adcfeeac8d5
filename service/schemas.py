"""What is said in the OpenAPI document beside what FastAPI says, or otherwise."""

from typing import Any

from fastapi import FastAPI

LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def never_null(schema: dict[str, Any]) -> None:
    """Take null out of the schema of what may be left out: no form, query or header can hold one.

    A `json_schema_extra`.
    """
    (value,) = (kind for kind in schema.pop("anyOf") if kind != {"type": "null"})
    schema.update(value)


def write_whole_limits(app: FastAPI) -> None:
    """Let the document of `app` write the limits of integers as such.

    FastAPI keeps them as doubles, and 9.223372036854776e+18, read as decimal, is more than 2**63.
    """
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _make_whole(describe())
        return describe()

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it


def _make_whole(node: object) -> None:
    if isinstance(node, dict):
        if node.get("type") == "integer":
            node.update({name: int(node[name]) for name in LIMITS if name in node})
        for child in node.values():
            _make_whole(child)
    elif isinstance(node, list):
        for child in node:
            _make_whole(child)


def header(name: str, description: str) -> dict[str, Any]:
    """Return the OpenAPI parameter of a header that an endpoint reads from the request itself.

    For headers that may hold anything: FastAPI would take longer over them than the rest of a poll does.
    """
    schema = {"type": "string"}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}
