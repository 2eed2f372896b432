"""What every page of the console keeps to."""

from __future__ import annotations

from html.parser import HTMLParser

import httpx
from plane import Browser, Plane


class Elements(HTMLParser):
    """Every element of a page with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def signed_in(plane: Plane, name: str = "admin") -> Browser:
    browser = Browser(plane[0])
    browser.sign_in(plane[2][name])
    return browser


def check_page(answer: httpx.Response) -> None:
    """Nothing inline, nothing from elsewhere, ids once, fields labelled, posts with their token, one heading."""
    assert answer.status_code == 200, answer.text
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'self';") and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    elements = Elements(answer.text).found
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in elements:
        assert tag != "style" and "style" not in attributes
        assert tag != "script" or attributes["src"]
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "action"):
            value = attributes.get(name) or "/"
            assert value.startswith(("/", "#")), f"{tag} leads elsewhere: {value}"
    forms = [attributes for tag, attributes in elements if tag == "form" and attributes.get("method") == "post"]
    tokens = [attributes for _, attributes in elements if attributes.get("name") == "csrf_token"]
    assert len(forms) == len(tokens) and all(attributes["value"] for attributes in tokens)
    labelled = {attributes["for"] for tag, attributes in elements if tag == "label"}
    fields = [attributes for tag, attributes in elements if tag in {"input", "textarea", "select"}]
    assert {field.get("id") for field in fields if field.get("type") != "hidden"} <= labelled
    assert sum(tag == "h1" for tag, _ in elements) == 1
