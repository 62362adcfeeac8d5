"""`GET /docs`: the OpenAPI document as a page to read and try, Swagger UI from its public CDN, which the
browser then may load; everything else of ours loads nothing from elsewhere.
"""

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

CDN = "https://cdn.jsdelivr.net"
POLICY = (
    f"default-src 'self'; script-src 'self' 'unsafe-inline' {CDN}; style-src 'self' 'unsafe-inline' {CDN}; "
    "img-src 'self' data: https://fastapi.tiangolo.com; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


def install_docs(app: FastAPI) -> None:
    """Let `app` serve the page; it works behind any root path."""

    @app.get("/docs", include_in_schema=False)
    def docs(request: Request) -> HTMLResponse:
        root_path = request.scope.get("root_path", "")
        page = get_swagger_ui_html(openapi_url=f"{root_path}/openapi.json", title="face-anon")
        page.headers["Content-Security-Policy"] = POLICY
        return page
