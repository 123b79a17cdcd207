"""The page for people: one file, which asks for nothing but counts."""

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from starlette.responses import Response

PAGE = Path(__file__).with_name("page.html")


@cache
def _page() -> tuple[bytes, str]:
    """The page, and which scripts and styles a browser may use: its own, by their digests."""
    text = PAGE.read_text(encoding="utf-8")
    allowed = {
        f"{kind}-src": f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'"
        for kind, tag in (("script", "script"), ("style", "style"))
        for part in re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
    }
    rules = {"default-src": "'none'", "img-src": "blob: data:", "connect-src": "'self'", **allowed}
    rules |= {"base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'self'"}
    return text.encode(), "; ".join(f"{name} {value}" for name, value in rules.items())


def response() -> Response:
    """The page as it is sent."""
    text, rules = _page()
    headers = {"Content-Security-Policy": rules, "Cache-Control": "no-cache"}
    return Response(text, media_type="text/html", headers=headers)
