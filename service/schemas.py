"""What is said of parameters in the OpenAPI document beside what FastAPI says."""

from typing import Any


def never_null(schema: dict[str, Any]) -> None:
    """Take null out of the schema of what may be left out: no form, query or header can hold one.

    A `json_schema_extra`.
    """
    (value,) = (kind for kind in schema.pop("anyOf") if kind != {"type": "null"})
    schema.update(value)


def header(name: str, description: str) -> dict[str, Any]:
    """Return the OpenAPI parameter of a header that an endpoint reads from the request itself.

    For headers that may hold anything: FastAPI would take longer over them than the rest of a poll does.
    """
    schema = {"type": "string"}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}
