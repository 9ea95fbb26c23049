import base64
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policies import (
    CallerKind,
    DeviceVerifier,
    Role,
    TokenExpired,
    TokenInvalid,
    TokenIssuer,
    TokenVerifier,
    key_id,
)
from policies import assertions as module

KEY = Ed25519PrivateKey.generate()
NAME = "device:tablet"


def assertion(token_id, *, key=KEY, name=NAME, issued=None, lifetime_s=60, **claims):
    issued = int(time.time()) if issued is None else issued
    fields = {"iss": name, "sub": name, "aud": "bedside:clinic", "iat": issued, "jti": token_id}
    fields |= {"exp": issued + lifetime_s, **claims}
    return jwt.encode(fields, key, algorithm="EdDSA", headers={"kid": name}).encode()


class Clock:
    def __init__(self):
        self.now = time.time()

    def __call__(self):
        return self.now


def test_an_assertion_makes_a_device():
    principal = DeviceVerifier({NAME: KEY.public_key()}.get, "clinic").verify(assertion("1"))
    assert (principal.id, principal.roles) == (NAME, {Role.DEVICE})
    assert principal.kind is CallerKind.DEVICE


def test_a_revoked_device_is_refused_at_once():
    keys = {NAME: KEY.public_key()}
    verifier = DeviceVerifier(keys.get, "clinic")
    verifier.verify(assertion("1"))
    del keys[NAME]
    with pytest.raises(TokenInvalid, match="not enrolled"):
        verifier.verify(assertion("2"))


def test_an_assertion_is_used_once_as_long_as_it_lives():
    clock = Clock()
    verifier = DeviceVerifier({NAME: KEY.public_key()}.get, "clinic", clock=clock)
    token = assertion("1", issued=int(clock.now))
    verifier.verify(token)
    for _ in range(2):
        clock.now += 30
        with pytest.raises(TokenInvalid, match="used before"):
            verifier.verify(token)
    clock.now += 30
    with pytest.raises(TokenExpired):
        verifier.verify(token)


def test_what_is_remembered_of_expired_assertions_is_forgotten():
    clock = Clock()
    verifier = DeviceVerifier({NAME: KEY.public_key()}.get, "clinic", clock=clock)
    for number in range(5):
        verifier.verify(assertion(str(number), issued=int(clock.now)))
    clock.now += 90
    verifier.verify(assertion("fresh", issued=int(clock.now)))
    assert list(verifier._used[NAME]) == ["fresh"]


def test_one_device_cannot_fill_the_memory_nor_keep_another_out(monkeypatch):
    monkeypatch.setattr(module, "LIVE_ASSERTIONS_MAX", 3)
    other = Ed25519PrivateKey.generate()
    keys = {NAME: KEY.public_key(), "device:phone": other.public_key()}
    verifier = DeviceVerifier(keys.get, "clinic")
    for number in range(3):
        verifier.verify(assertion(str(number)))
    with pytest.raises(TokenInvalid, match="at most 3"):
        verifier.verify(assertion("3"))
    verifier.verify(assertion("0", key=other, name="device:phone"))


@pytest.mark.parametrize(
    "claims",
    [
        {"jti": ""},
        {"jti": "x" * 65},
        {"jti": 7},
        {"iat": True},
        {"exp": 10**400},
        {"exp": 1e9},
        {"iat": int(time.time()) + 3600, "exp": int(time.time()) + 3660},
        {"sub": None},
    ],
)
def test_claims_out_of_their_type_or_range_are_refused(claims):
    with pytest.raises(TokenInvalid):
        DeviceVerifier({NAME: KEY.public_key()}.get, "clinic").verify(assertion("1", **claims))


def encoded(value: bytes) -> bytes:
    return base64.urlsafe_b64encode(value).rstrip(b"=")


@pytest.mark.parametrize(
    "token",
    [
        b"",
        b".",
        b"...",
        b"\xff\xfe.e30.",
        encoded(b"[" * 5000) + b".e30.x",
        encoded(b'{"kid":' + b"[" * 3000) + b".e30.x",
        encoded(json.dumps({"alg": "EdDSA", "kid": ["device:tablet"]}).encode()) + b".e30.",
        encoded(json.dumps({"alg": "none", "kid": "device:tablet"}).encode()) + b".e30.",
        encoded(json.dumps({"alg": "EdDSA", "kid": "device:tablet", "x": "y" * 900}).encode())
        + b".e30.",
    ],
)
def test_garbage_is_refused_and_not_remembered(token):
    verifier = DeviceVerifier({NAME: KEY.public_key()}.get, "clinic")
    verifier.is_assertion(token)
    assert len(verifier._headers) <= 1
    with pytest.raises(TokenInvalid):
        verifier.verify(token)
    with pytest.raises(TokenInvalid):
        TokenVerifier([KEY.public_key()], "clinic").verify(token)


def test_no_refusal_repeats_what_a_token_says():
    """Neither the message nor its causes: both end in tracebacks, and those in logs."""
    now = int(time.time())
    fields = {"iss": "bedside:clinic", "aud": "bedside:clinic", "iat": now, "exp": now + 9, "jti": "1"}
    secret = "Jane.Canary"
    verifier = TokenVerifier([KEY.public_key()], "clinic")
    for claims in (
        {"sub": secret, "roles": []},
        {"sub": "a", "roles": [secret]},
        {"sub": "a", "roles": [], "purpose": secret},
        {"sub": "a", "roles": [], "jurisdiction": secret},
        {"sub": "a", "roles": [], "iss": secret},
        {"sub": "a", "roles": [], "aud": secret},
    ):
        headers = {"kid": key_id(KEY.public_key())}
        token = jwt.encode({**fields, **claims}, KEY, algorithm="EdDSA", headers=headers)
        with pytest.raises(TokenInvalid) as refused:
            verifier.verify(token)
        error: BaseException | None = refused.value
        while error is not None:
            assert secret not in str(error)
            error = error.__cause__


def test_a_verifier_remembers_no_more_tokens_than_it_may():
    verifier = TokenVerifier([KEY.public_key()], "clinic", cached_tokens=2)
    issuer = TokenIssuer(KEY, "clinic")
    tokens = [issuer.issue(name, [Role.APP], lifetime_s=60) for name in ("a", "b", "c")]
    assert [verifier.verify(token).id for token in (*tokens, *tokens)] == ["a", "b", "c"] * 2
    assert len(verifier._verified) == 2
    assert verifier.verify(tokens[0]).kind is CallerKind.APP
