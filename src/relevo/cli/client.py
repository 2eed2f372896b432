"""The API as the commands call it: address and token from the environment, or from the home folder."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relevo.errors import (
    Conflict,
    Corrupted,
    Invalid,
    JobFailed,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    Overloaded,
    RelevoError,
    TooLarge,
    Unavailable,
)

if TYPE_CHECKING:  # `relevo --help` need not wait for either
    import httpx

    from relevo.platform.settings import Settings

CREDENTIALS = "cli.json"
_KINDS: dict[str, type[RelevoError]] = {
    kind.code: kind
    for kind in (
        Invalid, NotAuthenticated, NotAllowed, NotFound, Conflict, TooLarge, Overloaded, Unavailable, JobFailed,
        Corrupted,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where Relevo answers, and the token to say who asks."""

    url: str
    gateway: str
    token: str


def credentials(settings: Settings) -> Credentials:
    """``RELEVO_URL``, ``RELEVO_GATEWAY_URL`` and ``RELEVO_TOKEN`` where set, else what ``relevo up`` left in the home.

    Raises:
        NotAuthenticated: No token is to be found.
    """
    path = settings.root / CREDENTIALS
    saved = _saved(path)
    token = os.environ.get("RELEVO_TOKEN") or saved.get("token")
    if not token:
        raise NotAuthenticated(
            f"There is no token: RELEVO_TOKEN is not set and {path} does not exist.",
            hint="Run `relevo up` here first, or set RELEVO_TOKEN (and RELEVO_URL, when Relevo runs elsewhere).",
        )
    return Credentials(
        os.environ.get("RELEVO_URL") or saved.get("url") or f"http://{settings.host}:{settings.port}",
        os.environ.get("RELEVO_GATEWAY_URL")
        or saved.get("gateway")
        or f"http://{settings.host}:{settings.gateway_port}",
        token,
    )


def _saved(path: Path) -> dict[str, str]:
    """What ``relevo up`` left; nothing when it left none."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Invalid(
            f"{path} is not what `relevo up` wrote: it holds no JSON object.", hint="Set RELEVO_TOKEN instead."
        )
    return found


def save_credentials(settings: Settings, found: Credentials) -> Path:
    """Keep them for the commands of this user on this machine, readable by nobody else."""
    path = settings.folder() / CREDENTIALS
    draft = path.with_suffix(f".{os.getpid()}")  # a command that waits for it must not read a half
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"url": found.url, "gateway": found.gateway, "token": found.token}, file)
    return draft.replace(path)


def renew_addresses(settings: Settings, url: str, gateway: str) -> None:
    """Let the commands of this home find it at the addresses that it listens on now."""
    path = settings.root / CREDENTIALS
    if path.exists():
        saved = _saved(path)
        if saved.get("token") and (saved.get("url"), saved.get("gateway")) != (url, gateway):
            save_credentials(settings, Credentials(url, gateway, saved["token"]))


class Client:
    """Calls the control plane and the gateway; errors come back as the classes of ``errors``."""

    def __init__(self, found: Credentials, *, timeout_seconds: float = 120.0) -> None:
        import httpx

        self.credentials = found
        headers = {"Authorization": f"Bearer {found.token}"}
        self._http = httpx.Client(headers=headers, timeout=timeout_seconds)

    @classmethod
    def from_settings(cls, settings: Settings | None = None, *, timeout_seconds: float = 120.0) -> Client:
        """A client with the credentials of the environment or the home folder."""
        return cls(credentials(settings or nearest_settings()), timeout_seconds=timeout_seconds)

    def get(self, path: str, **parameters: object) -> Any:
        """The JSON answer of the control plane."""
        given = {name: str(value) for name, value in parameters.items() if value is not None}
        return self._send("GET", self.credentials.url + path, params=given)

    def get_text(self, path: str, **parameters: object) -> str:
        """The control plane's answer that is no JSON, such as a page."""
        given = {name: str(value) for name, value in parameters.items() if value is not None}
        return self._answer("GET", self.credentials.url + path, params=given).text

    def post(self, path: str, body: object = None) -> Any:
        """The JSON answer of the control plane to a JSON body."""
        return self._send("POST", self.credentials.url + path, json=body)

    def post_bytes(self, path: str, body: bytes, kind: str, **parameters: str | None) -> Any:
        """The JSON answer of the control plane to a body of that content type."""
        given = {name: value for name, value in parameters.items() if value is not None}
        headers = {"Content-Type": kind}
        return self._send("POST", self.credentials.url + path, params=given, content=body, headers=headers)

    def delete(self, path: str) -> Any:
        """The JSON answer of the control plane, if any."""
        return self._send("DELETE", self.credentials.url + path)

    def gateway_get(self, path: str) -> Any:
        """The JSON answer of the gateway."""
        return self._send("GET", self.credentials.gateway + path)

    def gateway_post(self, path: str, body: object) -> Any:
        """The JSON answer of the gateway to a JSON body."""
        return self._send("POST", self.credentials.gateway + path, json=body)

    def _send(self, method: str, url: str, **arguments: Any) -> Any:
        response = self._answer(method, url, **arguments)
        return response.json() if response.content else None

    def _answer(self, method: str, url: str, **arguments: Any) -> httpx.Response:
        import httpx

        try:
            response = self._http.request(method, url, **arguments)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Unavailable(
                f"{url.partition('/api/')[0]} does not answer: {str(error).rstrip('.')}.",
                hint="Is `relevo up` running? RELEVO_URL and RELEVO_GATEWAY_URL say where to ask instead.",
            ) from None
        if response.is_success:
            return response
        raise error_of(response)


def error_of(response: httpx.Response) -> RelevoError:
    """The error that an answer carries."""
    try:
        body = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        log = "relevo logs control" if response.url.path.startswith("/api/") else "relevo logs gateway-0"
        return Unavailable(
            f"{response.url} answered {response.status_code}: {response.text[:200]}.", hint=f"Its log says why: {log}"
        )
    return error_from(body)


def error_from(body: dict[str, Any]) -> RelevoError:
    """The error of that code, message, field and hint."""
    kind = _KINDS.get(body.get("code") or "", RelevoError)
    return kind(body.get("message") or "", field=body.get("field"), hint=body.get("hint"))


def read_settings(**given: object) -> Settings:
    """The settings of the environment, with those ``given`` before them.

    Raises:
        Invalid: One is not what it should be; the message names its variable.
    """
    from pydantic import ValidationError

    from relevo.platform.settings import Settings

    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        name = "RELEVO_" + "_".join(str(part) for part in first["loc"]).upper()
        raise Invalid(f"{name}: {first['msg']}, got {first['input']!r}.", field=name) from None


def nearest_settings() -> Settings:
    """The settings of the environment; without ``RELEVO_HOME`` the home is the nearest ``.relevo``, here or above.

    So that a command works in a project's folder when ``relevo up`` runs in the one above.
    """
    settings = read_settings()
    if "RELEVO_HOME" in os.environ or settings.root.exists():
        return settings
    above = (folder / settings.home for folder in settings.root.parent.parents)
    found = next((home for home in above if (home / CREDENTIALS).exists() and os.access(home, os.R_OK)), None)
    return settings if found is None else read_settings(home=found)
