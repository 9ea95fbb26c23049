"""Debian's rsyslog takes what is exported, over TCP and TLS, and reads every part of it.

CI installs it; where it is not, `tests/audit/test_export.py` still parses by the letter.
"""

import json
import shutil
import subprocess
import threading

import pytest
from support import hospital
from support.certificates import Authority
from support.sites import free_port

from audit.export import SyslogFormat, SyslogSender, tls_context
from audit.follow import DeliveryFailed, Entry
from audit.records import encode

RSYSLOG = shutil.which("rsyslogd", path="/usr/sbin:/usr/bin")
pytestmark = pytest.mark.skipif(RSYSLOG is None, reason="rsyslog is not installed (CI installs it)")

CONFIGURATION = """
global(workDirectory="{folder}" defaultNetstreamDriver="{driver}"
  defaultNetstreamDriverCAFile="{ca}" defaultNetstreamDriverCertFile="{certificate}"
  defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" streamDriver.name="{driver}" streamDriver.mode="{mode}"
  streamDriver.authMode="anon")
input(type="imtcp" port="{port}" address="127.0.0.1")
template(name="parts" type="list" option.jsonf="on") {{
  property(outname="facility" name="syslogfacility" format="jsonf")
  property(outname="severity" name="syslogseverity" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="process" name="procid" format="jsonf")
  property(outname="type" name="msgid" format="jsonf")
  property(outname="data" name="structured-data" format="jsonf")
  property(outname="message" name="msg" format="jsonf")
}}
action(type="omfile" file="{folder}/taken" template="parts")
"""


@pytest.fixture(params=["tcp", "tls"])
def rsyslog(request, tmp_path):
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("localhost")
    sealed = request.param == "tls"
    port = free_port()
    configuration = tmp_path / "rsyslog.conf"
    configuration.write_text(
        CONFIGURATION.format(
            folder=tmp_path, driver="gtls" if sealed else "ptcp", mode=int(sealed), port=port,
            ca=authority.ca, certificate=certificate, key=key,
        )
    )  # fmt: skip
    command = [RSYSLOG, "-n", "-iNONE", "-f", str(configuration)]
    with (tmp_path / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    sender = SyslogSender(
        "localhost",
        port,
        SyslogFormat(hostname="gw-1", enterprise=32473),
        tls=tls_context(authority.ca) if sealed else None,
        timeout_s=10,
    )
    yield sender, tmp_path / "taken", process
    process.terminate()
    process.wait()


async def test_rsyslog_reads_every_record(rsyslog):
    send, file, process = rsyslog
    records = [*hospital.requests(100), *hospital.coordination()]
    batch = [
        Entry("st-anna/gateway-1", number, record, encode(record))
        for number, record in enumerate(records)
    ]
    pause = threading.Event()
    taken = None
    while taken is None:
        assert process.poll() is None
        try:
            taken = await send(batch)
        except DeliveryFailed:
            # It has yet to listen.
            pause.wait(0.05)
    while not file.is_file() or file.read_bytes().count(b"\n") < len(batch):
        pause.wait(0.05)
    for line, entry in zip(file.read_text().splitlines(), batch, strict=True):
        parts = json.loads(line)
        assert (parts["facility"], parts["app"], parts["process"]) == ("13", "bedside", entry.log)
        assert parts["data"].startswith(f'[bedside@32473 log="{entry.log}" number="{entry.number}"')
        assert parts["message"].encode() == entry.leaf
        assert parts["type"] == json.loads(entry.leaf)["type"]
