"""Accounts, sessions and the lock: with a clock that tests turn."""

import pytest

from console import AccountError, Accounts, Lockout, Store, database_of
from console.lockout import Kind
from console.sessions import Sessions
from console.tables import Base
from policies import Role

PASSWORD = "a sentence that is long enough"


class Clock:
    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def store(tmp_path):
    opened = await Store.open(database_of(tmp_path))
    yield opened
    await opened.close()


@pytest.fixture
async def accounts(store):
    own = Accounts(store)
    await own.add("c.officer", [Role.COMPLIANCE], PASSWORD)
    return own


def test_the_migrations_make_what_the_tables_say(tmp_path):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import create_engine

    from console.store import _migrate

    path = tmp_path / "console.sqlite"
    _migrate(path)
    assert path.stat().st_mode & 0o077 == 0
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


async def test_a_password_opens_its_own_account_only(accounts):
    await accounts.add("d.officer", [Role.OPERATOR], "another long sentence here")
    found = await accounts.recognise("c.officer", PASSWORD)
    assert (found.name, found.roles) == ("c.officer", frozenset({Role.COMPLIANCE}))
    for name, password in (
        ("c.officer", PASSWORD + " "),
        ("c.officer", ""),
        ("d.officer", PASSWORD),
        ("nobody", PASSWORD),
        ("", PASSWORD),
        ("c.officer'--", PASSWORD),
    ):
        assert await accounts.recognise(name, password) is None


async def test_a_disabled_account_opens_nothing_and_an_enabled_one_does_again(accounts):
    await accounts.change("c.officer", disabled=True)
    assert await accounts.recognise("c.officer", PASSWORD) is None
    await accounts.change("c.officer", disabled=False)
    assert await accounts.recognise("c.officer", PASSWORD) is not None


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("Jane Doe", PASSWORD),
        ("", PASSWORD),
        ("x.officer", "short"),
        ("x.officer", "a" * 40),
        ("x.officer", "my name is x.officer today"),
        ("x.officer", PASSWORD * 20),
        ("c.officer", PASSWORD),
    ],
)
async def test_bad_names_and_weak_passwords_make_no_account(accounts, name, password):
    with pytest.raises(AccountError) as error:
        await accounts.add(name, [Role.COMPLIANCE], password)
    assert password not in str(error.value)
    assert [account.name for account in await accounts.list()] == ["c.officer"]


async def test_the_database_holds_no_password_and_no_cookie(accounts, store, tmp_path):
    token = await Sessions(store, idle_s=60, lifetime_s=300).begin("c.officer")
    await store.close()
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"$argon2id$" in content
    assert PASSWORD.encode() not in content
    assert token.encode() not in content


async def test_a_session_ends_when_idle_and_after_its_lifetime(accounts, store, clock):
    sessions = Sessions(store, idle_s=60, lifetime_s=300, clock=clock)
    token = await sessions.begin("c.officer")
    clock.now += 59
    assert (await sessions.find(token, active=True)).account.name == "c.officer"
    clock.now += 59
    assert await sessions.find(token, active=True) is not None
    clock.now += 60
    assert await sessions.find(token, active=True) is None

    token = await sessions.begin("c.officer")
    for _ in range(7):
        clock.now += 40
        assert await sessions.find(token, active=True) is not None
    clock.now += 40
    assert await sessions.find(token, active=True) is None


async def test_a_page_that_refreshes_itself_keeps_nobody_signed_in(accounts, store, clock):
    sessions = Sessions(store, idle_s=60, lifetime_s=300, clock=clock)
    token = await sessions.begin("c.officer")
    for _ in range(3):
        clock.now += 19
        assert await sessions.find(token, active=False) is not None
    clock.now += 19
    assert await sessions.find(token, active=False) is None


async def test_signing_in_again_ends_the_session_before_and_changing_the_account_all(accounts, store):
    sessions = Sessions(store, idle_s=60, lifetime_s=300)
    first = await sessions.begin("c.officer")
    second = await sessions.begin("c.officer", instead_of=first)
    assert first != second
    assert await sessions.find(first, active=True) is None
    other = await sessions.begin("c.officer")
    await sessions.end(other)
    assert await sessions.find(other, active=True) is None
    assert await sessions.find(second, active=True) is not None
    await accounts.change("c.officer", roles=[Role.OPERATOR])
    assert await sessions.find(second, active=True) is None


def lockout(store, clock):
    return Lockout(store, bytes(32), account_failures=3, address_failures=5, lockout_s=600, clock=clock)


async def test_an_account_is_locked_after_its_wrong_passwords_and_opens_after_a_while(store, clock):
    lock = lockout(store, clock)
    for _ in range(3):
        assert await lock.attempt("c.officer", "10.0.0.1") is None
    assert await lock.attempt("c.officer", "10.0.0.2") is Kind.ACCOUNT
    assert await lock.attempt("d.officer", "10.0.0.1") is None
    clock.now += 601
    assert await lock.attempt("c.officer", "10.0.0.2") is None


async def test_an_address_is_locked_whatever_names_it_tries(store, clock):
    lock = lockout(store, clock)
    for number in range(5):
        assert await lock.attempt(f"officer-{number}", "10.0.0.1") is None
    assert await lock.attempt("officer-9", "10.0.0.1") is Kind.ADDRESS
    assert await lock.attempt("officer-9", "10.0.0.2") is None


async def test_ones_own_account_does_not_make_an_address_free_to_guess(store, clock):
    lock = lockout(store, clock)
    for number in range(5):
        assert await lock.attempt(f"officer-{number}", "10.0.0.1") is None
        if number < 4:
            assert await lock.attempt("own", "10.0.0.1") is None
            await lock.succeed("own", "10.0.0.1")
    assert await lock.attempt("officer-9", "10.0.0.1") is Kind.ADDRESS


async def test_attempts_at_once_are_no_way_round(store, clock):
    import asyncio

    lock = lockout(store, clock)
    answers = await asyncio.gather(
        *(lock.attempt("c.officer", f"10.0.0.{number}") for number in range(12))
    )
    assert answers.count(None) == 3
    assert answers.count(Kind.ACCOUNT) == 9


async def test_a_right_password_and_it_unlock(store, clock):
    lock = lockout(store, clock)
    for _ in range(2):
        await lock.attempt("c.officer", "10.0.0.1")
        await lock.succeed("c.officer", "10.0.0.1")
    for _ in range(3):
        assert await lock.attempt("c.officer", "10.0.0.1") is None
    await lock.unlock("c.officer")
    assert await lock.attempt("c.officer", "10.0.0.1") is None


async def test_what_was_typed_for_a_name_is_not_in_the_database(store, tmp_path, clock):
    await lockout(store, clock).attempt("mrn-0001 Jane Doe", "10.11.12.13")
    await store.close()
    content = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"mrn-0001" not in content
    assert b"10.11.12.13" not in content
