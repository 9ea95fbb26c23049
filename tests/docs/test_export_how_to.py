"""The how-to for exporting, done with real processes; an exporter that is killed loses nothing.

Seen to fail: with the place kept before a batch is delivered, a kill loses records.
"""

import re
import subprocess
import threading
import tomllib
from pathlib import Path

from support import GatewayProcess, call, make_site, publish_linear, siem
from support.certificates import Authority
from support.sites import ROW

from audit.export import ExportSettings
from bedside.children import Child, bedside_command
from bedside.up import environment_of
from policies import Role

PAGE = (Path(__file__).parents[2] / "docs/how-to/export-to-a-siem.md").read_text()
CONSOLE = re.findall(r"```console\n\$ bedside (.*?)\n```", PAGE)
PRINTS = re.findall(r"<!-- prints: (.*?) -->", PAGE)
KILLS = 5
PER_KILL = 60


def settings(syslog, otlp, folder, ca):
    """Return what the page sets, with the receivers of this test in place of its examples."""
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    shown = tomllib.loads(block)
    (folder / "otel.token").write_text("let-me-in\n")
    assert shown["export"]["syslog"]["address"].startswith("tls://")
    here = {
        "syslog": {**shown["export"]["syslog"], "address": syslog.address, "ca": ca},
        "otlp": {"url": otlp.url, "token": f"file:{folder}/otel.token"},
    }
    assert set(here["otlp"]) == set(shown["export"]["otlp"])
    fast = {"interval_s": 0.02, "retry_s": 0.05, "retry_max_s": 0.2}
    return ExportSettings(**{name: {**fields, **fast} for name, fields in here.items()})


def start(site, folder):
    child = Child(
        "export",
        bedside_command(*CONSOLE[0].split()),
        log=folder / "export.log",
        environment=environment_of(site.config),
    )
    assert PRINTS[0] in child.wait_for(lambda line: "ready" in line, 60)
    return child


def kill(child):
    subprocess.run(["kill", "-KILL", str(child.pid)], check=True)
    child.stop()


def numbers(receiver):
    """Return the places in the gateway's log in the order in which they arrived."""
    found = []
    for message in receiver.taken.messages:
        if isinstance(message, siem.Message):
            log, number = message.place
        else:
            told = siem.attributes(message[1])
            log, number = told["bedside.entry.log"], told["bedside.entry.number"]
        assert log == "clinic/gateway-1"
        found.append(number)
    return found


def test_nothing_is_lost_whatever_dies_and_duplicates_stay_in_order(tmp_path):
    authority = Authority(tmp_path / "ca")
    with siem.SyslogReceiver(authority.server()) as syslog, siem.OtlpReceiver() as otlp:
        export = settings(syslog, otlp, tmp_path, authority.ca)
        site = make_site(tmp_path, export=export)
        publish_linear(site, tmp_path)
        asked = threading.Semaphore(0)
        stop = threading.Event()

        def load():
            while not stop.is_set():
                call("POST", gateway.infer_url, token=token, body=ROW)
                asked.release()

        with GatewayProcess(site, tmp_path) as gateway:
            token = gateway.token()
            caller = threading.Thread(target=load)
            caller.start()
            for turn in range(KILLS):
                child = start(site, tmp_path)
                otlp.answers += [503]
                before = len(syslog.taken.messages)
                for _ in range(PER_KILL):
                    asked.acquire()
                syslog.taken.until(lambda messages, least=before: len(messages) > least)
                if turn < KILLS - 1:
                    kill(child)
            stop.set()
            caller.join()
            url = f"{gateway.url}/metrics"
            operator = gateway.token("ops", Role.OPERATOR)
            labels = r"destination=\"(\w+)\",log=\"clinic/gateway-1\""
            pattern = rf"^bedside_gateway_export_lag_records\{{{labels}\}} 0\.0$"
            behind = {"syslog", "otlp"}
            # The scrape is a record too: what is asked of the export is all that was there before.
            size = int(call("GET", f"{gateway.url}/checkpoint").body.split(b"\n")[1])
            for receiver in (syslog, otlp):
                receiver.taken.until(lambda _, to=receiver: size - 1 in numbers(to))
            while behind:
                scraped = call("GET", url, token=operator).body.decode()
                behind -= set(re.findall(pattern, scraped, re.MULTILINE))
        child.stop()
        status = subprocess.run(
            bedside_command(*CONSOLE[1].split()),
            env={**environment_of(site.config), "PATH": "/usr/bin"},
            capture_output=True,
            text=True,
        )
        assert PRINTS[1] in status.stdout, status
        assert re.search(r"syslog +│ clinic/gateway-1 ", status.stdout)
    for receiver in (syslog, otlp):
        came = numbers(receiver)
        assert sorted(set(came)) == list(range(max(came) + 1))
        assert max(came) >= size - 1 >= KILLS * PER_KILL - KILLS
        seen = -1
        for number in came:
            # A number either follows all that came before it, or is one that came before.
            assert number <= seen + 1
            seen = max(seen, number)
    assert otlp.headers[0]["authorization"] == "Bearer let-me-in"
