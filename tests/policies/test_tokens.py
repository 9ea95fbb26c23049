import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies import (
    AssertedFacts,
    Belonging,
    Caller,
    CallerKind,
    DataClass,
    DeviceVerifier,
    Role,
    TokenExpired,
    TokenInvalid,
    TokenIssuer,
    TokenVerifier,
    key_id,
)

KEY = Ed25519PrivateKey.generate()
ISSUER = TokenIssuer(KEY, "clinic")


def verifier(clock=time.time):
    return TokenVerifier([KEY.public_key()], "clinic", clock=clock)


def forged(claims=None, *, key=KEY, header=None, algorithm="EdDSA"):
    now = int(time.time())
    fields = {
        "iss": "bedside:clinic",
        "aud": "bedside:clinic",
        "sub": "dr.adams",
        "roles": ["clinician"],
        "iat": now,
        "exp": now + 60,
        "jti": "1",
        **(claims or {}),
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    headers = {"kid": key_id(KEY.public_key()), **(header or {})}
    return jwt.encode(fields, key, algorithm=algorithm, headers=headers).encode()


def test_a_token_says_who_and_what():
    asserted = AssertedFacts(subject="mrn-1", data_class=DataClass.LIMITED, jurisdiction="DE")
    token = ISSUER.issue("dr.adams", [Role.CLINICIAN], lifetime_s=60, asserted=asserted).encode()
    for _ in range(2):
        principal = verifier().verify(token)
        assert (principal.id, principal.roles) == ("dr.adams", {Role.CLINICIAN})
        assert principal.asserted == asserted


def test_a_token_says_what_kind_of_caller_and_of_which_organisation():
    said = Belonging(kind=CallerKind.SERVICE, site="east", organisation="st-anna")
    token = ISSUER.issue("scheduler", [Role.CLINICIAN], lifetime_s=60, said=said).encode()
    assert verifier().verify(token).caller == Caller(
        roles=frozenset({Role.CLINICIAN}),
        kind=CallerKind.SERVICE,
        site="east",
        organisation="st-anna",
    )


@pytest.mark.parametrize(
    ("roles", "kind"),
    [
        ([Role.CLINICIAN], CallerKind.USER),
        ([Role.APP, Role.CLINICIAN], CallerKind.APP),
        ([Role.DEVICE, Role.CLINICIAN], CallerKind.DEVICE),
        ([], CallerKind.USER),
    ],
)
def test_what_a_token_does_not_say_of_its_caller_follows_from_its_roles_and_its_site(roles, kind):
    caller = verifier().verify(ISSUER.issue("x", roles, lifetime_s=60).encode()).caller
    assert (caller.kind, caller.site, caller.organisation) == (kind, "clinic", "clinic")


@pytest.mark.parametrize("said", [Belonging(site="East"), Belonging(organisation="")])
def test_no_token_is_issued_that_would_not_be_accepted(said):
    with pytest.raises(TokenInvalid):
        ISSUER.issue("dr.adams", [Role.CLINICIAN], lifetime_s=60, said=said)


def test_a_remembered_token_still_expires():
    now = time.time()
    clock = iter([now, now, now + 3600, now + 3600])
    checked = verifier(lambda: next(clock))
    token = ISSUER.issue("dr.adams", [Role.CLINICIAN], lifetime_s=60).encode()
    checked.verify(token)
    checked.verify(token)
    with pytest.raises(TokenExpired):
        checked.verify(token)
    with pytest.raises(TokenExpired):
        checked.verify(token)


OTHER = Ed25519PrivateKey.generate()


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"a.b.c",
        b"x" * 9000,
        forged(key=OTHER),
        forged(key=OTHER, header={"kid": key_id(OTHER.public_key())}),
        forged({"iss": "bedside:other"}),
        forged({"aud": "bedside:other"}),
        forged({"roles": ["clinician", "root"]}),
        forged({"roles": "clinician"}),
        forged({"sub": "Jane Doe, born 1970"}),
        forged({"exp": None}),
        forged({"jti": None}),
        forged({"exp": "tomorrow"}),
        forged({"data_class": "public"}),
        forged({"jurisdiction": "Mordor"}),
        forged({"purpose": "FUN"}),
        forged({"kind": "robot"}),
        forged({"kind": ["user"]}),
        forged({"site": "East Wing"}),
        forged({"organisation": "Saint Anna, Vienna"}),
        forged({"organisation": 7}),
        jwt.encode({"sub": "dr.adams"}, None, algorithm="none").encode(),
        forged(key="s" * 32, algorithm="HS256"),
        forged()[:-3] + b"AAA",
    ],
)
def test_what_the_issuer_did_not_sign_is_refused(token):
    with pytest.raises(TokenInvalid):
        verifier().verify(token)


DEVICE = Ed25519PrivateKey.generate()


def assertion(claims=None, key=DEVICE, device="device:phone-1"):
    now = int(time.time())
    fields = {
        "iss": device,
        "sub": device,
        "aud": "bedside:clinic",
        "iat": now,
        "exp": now + 60,
        "jti": str(time.perf_counter_ns()),
        **(claims or {}),
    }
    return jwt.encode(fields, key, algorithm="EdDSA", headers={"kid": device}).encode()


def device_verifier():
    keys = {"device:phone-1": DEVICE.public_key()}
    return DeviceVerifier(keys.get, "clinic")


def test_a_device_speaks_for_itself_once():
    checked = device_verifier()
    token = assertion()
    assert checked.is_assertion(token)
    assert checked.verify(token).id == "device:phone-1"
    with pytest.raises(TokenInvalid, match="used before"):
        checked.verify(token)
    assert not checked.is_assertion(ISSUER.issue("a", [Role.APP], lifetime_s=9).encode())


@pytest.mark.parametrize(
    "token",
    [
        assertion(key=OTHER),
        assertion(device="device:stranger"),
        assertion({"sub": "device:phone-2"}),
        assertion({"exp": int(time.time()) + 3600}),
        assertion({"aud": "bedside:other"}),
    ],
)
def test_a_device_cannot_speak_for_another_or_for_long(token):
    with pytest.raises(TokenInvalid):
        device_verifier().verify(token)


def test_an_old_assertion_is_refused():
    old = int(time.time()) - 600
    with pytest.raises(TokenExpired):
        device_verifier().verify(assertion({"iat": old, "exp": old + 60}))
