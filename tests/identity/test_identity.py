from datetime import UTC, datetime, timedelta

import pytest

from relevo.errors import Conflict, Invalid, NotAllowed, NotAuthenticated, NotFound
from relevo.identity.model import RELEVO, Accepted, Permission, Principal, Role
from relevo.identity.policy import token_digest
from relevo.identity.service import LAST_USED_STEP, SESSION_LIFETIME, Identity
from relevo.ledger.service import Ledger
from relevo.platform.state import State


class Wall:
    """A wall clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def identity(state: State, wall: Wall) -> Identity:
    return Identity(state, wall=wall)


@pytest.fixture
def admin_token(state: State, identity: Identity) -> str:
    with state.transaction() as tx:
        token = identity.bootstrap(tx)
    assert token is not None
    return token


def make(state: State, identity: Identity, name: str, role: Role, expires_at: datetime | None = None) -> str:
    with state.transaction() as tx:
        identity.create_principal(tx, name, role)
        return identity.create_token(tx, name, role, note="test", expires_at=expires_at)


def test_the_first_token_is_an_administrators_and_made_once(state: State, identity: Identity, admin_token: str) -> None:
    assert admin_token.startswith("rlv_") and len(admin_token) == 47
    assert identity.authenticate(admin_token) == Principal("admin", Role.ADMIN)
    with state.transaction() as tx:
        assert identity.bootstrap(tx) is None


def test_relevos_own_run_token_does_not_count_as_an_administrator(state: State, identity: Identity) -> None:
    with state.transaction() as tx:
        token = identity.create_token(tx, RELEVO.name, Role.RUN, note="run 1")
        assert identity.bootstrap(tx) is not None
    assert identity.authenticate(token) == Principal("relevo", Role.RUN)


def test_no_token_is_kept(state: State, identity: Identity, admin_token: str) -> None:
    cookie = identity.open_session(admin_token)
    with state.read() as tx:
        for table in ("principals", "tokens", "sessions", "ledger"):
            rows = str(tx.exec_driver_sql(f"SELECT * FROM {table}").all())
            assert admin_token not in rows and cookie not in rows


@pytest.mark.parametrize("token", ["", "rlv_", "rlv_" + "x" * 43, "ü", "rlv_\x00"])
def test_an_unknown_token_is_refused(identity: Identity, admin_token: str, token: str) -> None:
    with pytest.raises(NotAuthenticated, match="not known"):
        identity.authenticate(token)


def test_a_token_ends_when_it_expires(state: State, identity: Identity, wall: Wall) -> None:
    token = make(state, identity, "ana", Role.VIEWER, wall.now + timedelta(hours=1))
    assert identity.authenticate(token).name == "ana"
    wall.now += timedelta(hours=1)
    with pytest.raises(NotAuthenticated, match="expired"):
        identity.authenticate(token)
    assert identity.active_tokens() == {}


def test_a_revoked_token_is_refused_at_once(state: State, identity: Identity, admin_token: str) -> None:
    token = make(state, identity, "ana", Role.VIEWER)
    cookie = identity.open_session(token)
    for _ in range(2):
        with state.transaction() as tx:
            identity.revoke(tx, identity.token_id(token), reason="lost")
    with pytest.raises(NotAuthenticated, match="revoked"):
        identity.authenticate(token)
    with pytest.raises(NotAuthenticated, match="revoked"):
        identity.session(cookie)
    with pytest.raises(NotFound), state.transaction() as tx:
        identity.revoke(tx, "nothing")
    with pytest.raises(NotFound), state.transaction() as tx:
        identity.revoke(tx, "\0")
    with pytest.raises(NotFound), state.transaction() as tx:
        identity.create_token(tx, "\0", Role.VIEWER, note="")


def test_a_disabled_principal_is_refused_and_its_name_stays_taken(
    state: State, identity: Identity, admin_token: str
) -> None:
    admin = identity.authenticate(admin_token)
    token = make(state, identity, "ana", Role.VIEWER)
    cookie = identity.open_session(token)
    with state.transaction() as tx:
        identity.disable_principal(tx, "ana", actor=admin)
    for refused in (lambda: identity.authenticate(token), lambda: identity.session(cookie)):
        with pytest.raises(NotAuthenticated, match="disabled"):
            refused()
    assert token_digest(token) not in identity.active_tokens()
    with pytest.raises(Conflict, match="never reused"):
        make(state, identity, "ana", Role.VIEWER)
    with pytest.raises(NotFound, match="disabled"), state.transaction() as tx:
        identity.create_token(tx, "ana", Role.VIEWER, note="")


def test_the_last_administrator_stays(state: State, identity: Identity, admin_token: str) -> None:
    admin = identity.authenticate(admin_token)
    with pytest.raises(Conflict, match="Nobody could administer"), state.transaction() as tx:
        identity.revoke(tx, identity.token_id(admin_token))
    with pytest.raises(Conflict, match="Nobody could administer"), state.transaction() as tx:
        identity.disable_principal(tx, "admin", actor=admin)
    make(state, identity, "ana", Role.ADMIN)
    with state.transaction() as tx:
        identity.revoke(tx, identity.token_id(admin_token))


def test_a_token_may_narrow_its_principals_role_and_not_widen_it(state: State, identity: Identity) -> None:
    make(state, identity, "ana", Role.ENGINEER)
    with state.transaction() as tx:
        run = identity.create_token(tx, "ana", Role.RUN, note="run", actor=Principal("ana", Role.ENGINEER))
    assert identity.authenticate(run).may(Permission.TRACK)
    for role in (Role.ADMIN, Role.REVIEWER, Role.SYSTEM):
        with pytest.raises(NotAllowed, match="cannot have the role"), state.transaction() as tx:
            identity.create_token(tx, "ana", role, note="")


def test_only_relevo_itself_makes_a_token_whose_requests_are_not_logged(state: State, identity: Identity) -> None:
    make(state, identity, "ada", Role.ADMIN)
    ada = Principal("ada", Role.ADMIN)
    with state.transaction() as tx:
        identity.create_token(tx, RELEVO.name, Role.RUN, note="so that relevo is known")
    for owner in ("ada", RELEVO.name):
        with pytest.raises(NotAllowed, match="it is Relevo's own"), state.transaction() as tx:
            identity.create_token(tx, owner, Role.LOAD_TEST, note="", actor=ada)
    with pytest.raises(Invalid, match="Relevo's own"), state.transaction() as tx:
        identity.create_principal(tx, "loader", Role.LOAD_TEST)
    with state.transaction() as tx:
        token = identity.create_token(tx, RELEVO.name, Role.LOAD_TEST, note="load test")
    principal = identity.authenticate(token)
    assert {each for each in Permission if principal.may(each)} == {Permission.PREDICT, Permission.ADDRESS_VERSION}


@pytest.mark.parametrize("name", ["", "Ana", "a b", "-a", "a/b", "a\n", "x" * 129, "relevo"])
def test_a_name_that_is_not_plain_is_refused(state: State, identity: Identity, name: str) -> None:
    with pytest.raises(Invalid), state.transaction() as tx:
        identity.create_principal(tx, name, Role.VIEWER)


def test_a_token_that_has_expired_already_is_not_made(state: State, identity: Identity, wall: Wall) -> None:
    for expires_at in (wall.now, wall.now.replace(tzinfo=None), datetime.max.replace(tzinfo=UTC)):
        with pytest.raises(Invalid, match="expires_at"):
            make(state, identity, "ana", Role.VIEWER, expires_at)


@pytest.mark.parametrize("note", ["a\nb", "\0", "x" * 257])
def test_a_note_is_one_short_line(state: State, identity: Identity, admin_token: str, note: str) -> None:
    with pytest.raises(Invalid, match="one line"), state.transaction() as tx:
        identity.create_token(tx, "admin", Role.VIEWER, note=note)


def test_use_is_noted_coarsely(identity: Identity, admin_token: str, wall: Wall) -> None:
    first = wall.now
    identity.authenticate(admin_token)
    wall.now += LAST_USED_STEP / 2
    identity.authenticate(admin_token)
    assert identity.tokens()[0].last_used_at == first
    wall.now += LAST_USED_STEP
    identity.authenticate(admin_token)
    assert identity.tokens()[0].last_used_at == wall.now


def test_a_session_has_its_own_csrf_token_and_ends(identity: Identity, admin_token: str, wall: Wall) -> None:
    cookie, other = identity.open_session(admin_token), identity.open_session(admin_token)
    principal, csrf = identity.session(cookie)
    assert principal == Principal("admin", Role.ADMIN)
    assert csrf == identity.session(cookie)[1] != identity.session(other)[1]
    identity.close_session(cookie)
    identity.close_session(cookie)
    with pytest.raises(NotAuthenticated, match="over"):
        identity.session(cookie)
    wall.now += SESSION_LIFETIME
    with pytest.raises(NotAuthenticated, match="over"):
        identity.session(other)


def test_a_cookie_is_no_token_and_a_token_no_cookie(identity: Identity, admin_token: str) -> None:
    cookie = identity.open_session(admin_token)
    with pytest.raises(NotAuthenticated):
        identity.authenticate(cookie)
    with pytest.raises(NotAuthenticated):
        identity.session(admin_token)


def test_active_tokens_serve_the_gateways_cache(state: State, identity: Identity, admin_token: str, wall: Wall) -> None:
    expires_at = wall.now + timedelta(days=1)
    token = make(state, identity, "shop", Role.APPLICATION, expires_at)
    assert identity.active_tokens() == {
        token_digest(admin_token): Accepted(Principal("admin", Role.ADMIN), None),
        token_digest(token): Accepted(Principal("shop", Role.APPLICATION), expires_at),
    }


@pytest.mark.parametrize(
    ("rate", "kept"), [("100/s", "100/s"), ("30/minute", "30/min"), (" 007 / h ", "7/h"), ("1/m", "1/min")]
)
def test_a_token_keeps_its_rate_in_one_spelling(
    state: State, identity: Identity, admin_token: str, rate: str, kept: str
) -> None:
    with state.transaction() as tx:
        identity.create_principal(tx, "shop", Role.APPLICATION)
        token = identity.create_token(tx, "shop", Role.APPLICATION, note="", rate=rate)
    assert identity.active_tokens()[token_digest(token)].rate == kept
    assert {one.principal: one.rate for one in identity.tokens()} == {"admin": None, "shop": kept}


@pytest.mark.parametrize("rate", ["", "0/s", "100", "-1/s", "1.5/s", "1/day", "1/s\n1/s", "٣/s", "9999999999/s"])
def test_what_is_no_rate_is_refused(state: State, identity: Identity, admin_token: str, rate: str) -> None:
    with state.transaction() as tx, pytest.raises(Invalid, match="such as 100/s") as refused:
        identity.create_token(tx, "admin", Role.ADMIN, note="", rate=rate)
    assert refused.value.field == "rate"


def test_every_change_is_in_the_ledger(state: State, identity: Identity, admin_token: str) -> None:
    admin = identity.authenticate(admin_token)
    with state.transaction() as tx:
        identity.create_principal(tx, "ana", Role.ENGINEER, actor=admin)
        token = identity.create_token(tx, "ana", Role.ENGINEER, note="laptop", actor=admin)
        identity.revoke(tx, identity.token_id(token), actor=admin, reason="lost")
        identity.disable_principal(tx, "ana", actor=admin)
    ledger = Ledger(state)
    actions = [(entry.actor, entry.action) for entry in reversed(ledger.entries())]
    assert actions == [
        ("relevo", "principal created"),
        ("relevo", "token created"),
        ("admin", "principal created"),
        ("admin", "token created"),
        ("admin", "token revoked"),
        ("admin", "principal disabled"),
    ]
    assert ledger.verify() == 6
