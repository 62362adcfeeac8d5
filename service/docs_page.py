"""`GET /docs`: the OpenAPI document as a page to read and try. Like every page of ours it loads nothing from
elsewhere: Swagger UI comes from this service too.
"""

from importlib.resources import files

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

SWAGGER_UI = str(files("fastapi_offline") / "static")
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def install_docs(app: FastAPI) -> None:
    """Let `app` serve the page and what it loads; they work behind any root path."""
    app.mount("/docs/assets", StaticFiles(directory=SWAGGER_UI))

    @app.get("/docs", include_in_schema=False)
    def docs(request: Request) -> HTMLResponse:
        root_path = request.scope.get("root_path", "")
        assets = f"{root_path}/docs/assets"
        page = get_swagger_ui_html(
            openapi_url=f"{root_path}/openapi.json",
            title="face-anon",
            swagger_js_url=f"{assets}/swagger-ui-bundle.js",
            swagger_css_url=f"{assets}/swagger-ui.css",
            swagger_favicon_url=f"{assets}/favicon.png",
        )
        page.headers["Content-Security-Policy"] = POLICY
        return page
