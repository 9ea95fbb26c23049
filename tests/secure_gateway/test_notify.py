"""Those whom policy obliges to tell are told, by a real receiver's account."""

import base64
import hashlib
import hmac
import json
import re
import secrets
import threading
import time
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support import GatewayProcess, call, make_site, publish_linear, records_of
from support.obliged import FACTS, obliged
from support.sites import ROW

from audit.records import Action, Outcome, RequestRecord
from bedside.config import Config
from bedside.demo.canaries import Canaries, written_files
from policies import Role
from secure_gateway import GatewayError, Webhook
from secure_gateway.notify import NotifySettings

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


class Receiver:
    """A webhook's receiver that takes, refuses, or sends elsewhere."""

    def __init__(self):
        self.messages = []
        self.status = 204
        self._changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                status = receiver.status
                with receiver._changed:
                    receiver.messages.append((status, self.path, dict(self.headers), body))
                    receiver._changed.notify_all()
                self.send_response(status)
                if status == 307:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def until(self, condition):
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.messages), 30), self.messages

    def taken(self):
        return [headers["webhook-id"] for status, _, headers, _ in self.messages if status == 204]


@pytest.fixture
def receiver():
    running = Receiver()
    yield running
    running.close()


@pytest.fixture
def site(tmp_path, receiver):
    (tmp_path / "webhook.secret").write_text(f"{SECRET}\n")
    notify = {
        "webhook": f"http://127.0.0.1:{receiver.port}/hook?team=privacy",
        "secret": f"file:{tmp_path / 'webhook.secret'}",
        "retry_s": 0.05,
        "retry_max_s": 0.2,
    }
    config = make_site(tmp_path, gateway={"notify": notify}).config
    site = obliged(config, "notify", tmp_path / "packs")
    publish_linear(site, tmp_path)
    return site


def ask(site, gateway, path="/v2/models/breast-cancer/infer", body=ROW, **headers):
    token = site.token_issuer().issue("dr.adams", [Role.CLINICIAN], lifetime_s=600)
    sent = {**FACTS, **headers}
    return call("POST", f"{gateway.url}{path}", token=token, headers=sent, body=body)


def reference(reply):
    assert reply.status == 200, reply.body
    return reply.headers["bedside-record"]


def test_what_is_told_is_signed_and_says_no_more_than_it_must(site, receiver, tmp_path):
    canaries = Canaries()
    subject = f"canary-{secrets.token_hex(8)}"
    canaries.add_text(subject)
    with GatewayProcess(site, tmp_path) as gateway:
        # One that policy obliges to nothing is not told of.
        assert ask(site, gateway, **{"Bedside-Data-Class": "phi"}).status == 200
        reply = ask(site, gateway, **{"Bedside-Subject": subject})
        receiver.until(lambda messages: messages)
    ((_, path, headers, body),) = receiver.messages
    assert path == "/hook?team=privacy"
    assert headers["webhook-id"] == reference(reply)
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.new(b"k" * 32, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{mac}"
    message = json.loads(body)
    assert message["type"] == "bedside.request"
    told = message["data"]
    log, _, number = reference(reply).partition("#")
    assert (told["log"], told["number"]) == (log, int(number))
    assert (told["principal"], told["action"], told["outcome"]) == ("dr.adams", "infer", "served")
    assert told["obligations"] == ["notify"]
    pseudonym = site.pseudonymizer().pseudonym(subject)
    for text in (subject, pseudonym, "candidates", "duration"):
        assert text not in body.decode()
    assert not list(canaries.search(written_files(tmp_path)))


def test_a_receiver_that_is_down_gets_all_of_it_later_and_in_order(site, receiver, tmp_path):
    with GatewayProcess(site, tmp_path) as gateway:
        receiver.status = 503
        asked = [reference(ask(site, gateway)) for _ in range(3)]
        receiver.until(lambda messages: len(messages) >= 3)
        receiver.status = 307
        receiver.until(lambda messages: sum(m[0] == 307 for m in messages) >= 2)
        assert receiver.taken() == []
        receiver.status = 204
        receiver.until(lambda messages: sum(m[0] == 204 for m in messages) == 3)
    assert receiver.taken() == asked
    assert {path for _, path, _, _ in receiver.messages} == {"/hook?team=privacy"}
    # Before the first was taken, nobody was told of the second.
    first = [m[2]["webhook-id"] for m in receiver.messages if m[0] != 204]
    assert set(first) == {asked[0]}


def test_a_kill_loses_nothing(site, receiver, tmp_path):
    with GatewayProcess(site, tmp_path) as gateway:
        asked = [reference(ask(site, gateway))]
        receiver.until(lambda _: receiver.taken() == asked)
        receiver.status = 500
        asked += [reference(ask(site, gateway)) for _ in range(4)]
        gateway.kill()
        receiver.status = 204
        gateway.start()
        receiver.until(lambda _: len(set(receiver.taken())) == 5)
        asked.append(reference(ask(site, gateway)))
        gateway.kill()
        gateway.start()
        receiver.until(lambda _: len(set(receiver.taken())) == 6)
    # Told at least once, and for the first time in the order in which it happened.
    assert list(dict.fromkeys(receiver.taken())) == asked


def test_work_and_placements_under_it_are_told_of_too(site, receiver, tmp_path):
    with GatewayProcess(site, tmp_path) as gateway:
        placement = {"model": "breast-cancer", "data_class": "deidentified"}
        assert ask(site, gateway, "/v1/placements", placement).status == 200
        submitted = ask(site, gateway, "/v1/models/breast-cancer/work")
        assert submitted.status == 202
        receiver.until(lambda messages: len(messages) == 2)
    actions = [json.loads(body)["data"]["action"] for *_, body in receiver.messages]
    assert actions == ["place", "infer"]
    served = [r.action for r in records_of(site) if r.outcome is Outcome.SERVED]
    assert served == [Action.PLACE, Action.SUBMIT, Action.INFER]


def test_without_a_webhook_it_is_refused_whatever_way_it_is_asked(tmp_path):
    site = obliged(make_site(tmp_path).config, "notify", tmp_path / "packs")
    publish_linear(site, tmp_path)
    placement = {"model": "breast-cancer", "data_class": "deidentified"}
    with GatewayProcess(site, tmp_path) as gateway:
        for reply in (
            ask(site, gateway),
            ask(site, gateway, "/v1/models/breast-cancer/work"),
            ask(site, gateway, "/v1/placements", placement),
        ):
            assert reply.status == 403
            assert reply.json["type"] == "urn:bedside:problem:obligation-unmet"


def test_a_webhook_without_a_secret_is_no_configuration():
    for notify in ({"webhook": "https://hooks.example/x"}, {"secret": "file:/x"}):
        with pytest.raises(ValueError, match="given together"):
            Config(gateway={"notify": notify})
    with pytest.raises(ValueError, match="webhook"):
        Config(gateway={"notify": {"webhook": "ftp://x/", "secret": "file:/x"}})


@pytest.mark.parametrize("secret", ["", "short", "whsec_!!!", "whsec_c2hvcnQ="])
def test_a_secret_that_is_none_is_refused_and_not_shown(secret):
    with pytest.raises(GatewayError) as caught:
        Webhook("http://127.0.0.1/", secret, timeout_s=1)
    assert secret == "" or secret not in str(caught.value)


def test_the_settings_that_the_how_to_shows_are_valid_and_the_defaults():
    text = (Path(__file__).parents[2] / "docs/how-to/be-notified.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    shown = tomllib.loads(block)["gateway"]["notify"]
    made = NotifySettings(**shown)
    defaults = NotifySettings().model_dump(exclude={"webhook", "secret"})
    assert made.model_dump(exclude={"webhook", "secret"}) == defaults
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    members = json.loads(example)["data"].keys()
    assert members <= {"log", "number", *RequestRecord.__struct_fields__}
