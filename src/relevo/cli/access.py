"""``relevo token`` and ``relevo principal``: who may do what."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import typer

from relevo.cli.client import Client, credentials, nearest_settings
from relevo.cli.terminal import moment, say, table

token_app = typer.Typer(help="Tokens that say who asks.", no_args_is_help=True)
principal_app = typer.Typer(help="People and programs, and their roles.", no_args_is_help=True)

#: The roles that people and programs may have; those of jobs and workflows are Relevo's own.
Role = Literal["admin", "engineer", "reviewer", "viewer", "application"]


@token_app.command("create")
def create_token(
    principal: Annotated[str, typer.Argument(help="Whose token it is.")],
    role: Annotated[Role | None, typer.Option(help="Narrows the principal's role.")] = None,
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires; never when left out.")] = None,
    rate: Annotated[
        str | None, typer.Option(help="Requests that the gateway takes from it, such as 100/s or 30/min.")
    ] = None,
) -> None:
    """Make a token; it is shown once."""
    expires_at = None if days is None else (datetime.now(UTC) + timedelta(days=days)).isoformat()
    body = {"principal": principal, "role": role, "note": note, "expires_at": expires_at, "rate": rate}
    answer = Client.from_settings().post("/api/tokens", body)
    say(answer["token"])


@token_app.command("show")
def show_token() -> None:
    """Print the token that the commands here use, for scripts."""
    say(credentials(nearest_settings()).token)


@token_app.command("list")
def list_tokens(
    every: Annotated[bool, typer.Option("--all", help="Those that were revoked or have expired, too.")] = False,
) -> None:
    """List the tokens that work; never their secret."""
    now = datetime.now(UTC)
    found = Client.from_settings().get("/api/tokens")
    rows = [
        [one["id"], one["principal"], one["role"], one["note"], one["rate"] or "",
         moment(one["created_at"]), moment(one["expires_at"]),
         moment(one["last_used_at"]), _standing(one, now)]
        for one in found if every or not _standing(one, now)
    ]  # fmt: skip
    table(["id", "principal", "role", "note", "rate", "created", "expires", "last used", ""], rows, empty="No token.")
    if len(rows) < len(found):
        say(f"{len(found) - len(rows)} more work no longer: relevo token list --all", "dim")


def _standing(token: dict[str, Any], now: datetime) -> str:
    if token["revoked_at"]:
        return "revoked"
    is_over = token["expires_at"] is not None and datetime.fromisoformat(token["expires_at"]) <= now
    return "expired" if is_over else ""


@token_app.command("revoke")
def revoke_token(token: Annotated[str, typer.Argument(help="Id of the token; see `relevo token list`.")]) -> None:
    """Revoke a token; it stops working within a second."""
    Client.from_settings().delete(f"/api/tokens/{token}")
    say(f"Token {token} is revoked.")


@principal_app.command("create")
def create_principal(
    name: Annotated[str, typer.Argument(help="Name, such as ruth.")],
    role: Annotated[Role, typer.Option(help="What it may do.")],
) -> None:
    """Make a principal; then make a token for it."""
    Client.from_settings().post("/api/principals", {"name": name, "role": role})
    say(f"{name} is a principal with the role {role}. Next: relevo token create {name}")


@principal_app.command("list")
def list_principals() -> None:
    """List the principals."""
    rows = [
        [
            one["name"],
            one["role"],
            moment(one["created_at"]),
            one["created_by"],
            "disabled" if one["disabled_at"] else "",
        ]
        for one in Client.from_settings().get("/api/principals")
    ]
    table(["name", "role", "created", "by", ""], rows, empty="No principal.")
