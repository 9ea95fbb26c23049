"""The command line says of callers and nodes what policies can look at, in words of closed sets."""

import jwt
import pytest
from typer.testing import CliRunner

from bedside.cli.main import app
from bedside.config import Config
from bedside.errors import BedsideError


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def ran(*words):
        return CliRunner().invoke(app, words, env={"COLUMNS": "200"})

    return ran


def test_a_token_says_the_kind_the_site_and_the_organisation(run):
    options = ("--kind", "service", "--site", "east", "--organisation", "st-anna")
    done = run("token", "issue", "scheduler", "--role", "clinician", *options)
    assert done.exit_code == 0, done.output
    claims = jwt.decode(done.stdout.strip(), options={"verify_signature": False})
    assert (claims["kind"], claims["site"], claims["organisation"]) == ("service", "east", "st-anna")
    plain = run("token", "issue", "dr.adams", "--role", "clinician").stdout.strip()
    assert not {"kind", "site", "organisation"} & set(
        jwt.decode(plain, options={"verify_signature": False})
    )


@pytest.mark.parametrize("options", [("--kind", "robot"), ("--organisation", "Saint Anna")])
def test_a_token_that_would_not_be_accepted_is_not_issued(run, options):
    done = run("token", "issue", "x", "--role", "clinician", *options)
    assert done.exit_code != 0
    assert done.exit_code == 2 or isinstance(done.exception, BedsideError)


AWAY = ("--role", "clinician", "--node", "US-VA", "--no-on-premises")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (AWAY, "needs a business associate agreement"),
        ((*AWAY, "--agreement", "scc"), "needs a business associate agreement"),
        ((*AWAY, "--agreement", "baa"), "a model of the highest risk class runs on hardware"),
        ((*AWAY, "--agreement", "baa", "--attested"), "Permitted: PHI data of US-CA"),
        (
            ("--role", "device", "--kind", "device", "--on-device"),
            "a device asks about its own person only",
        ),
        (("--role", "device", "--kind", "device", "--own-device"), "Permitted: PHI data of US-CA"),
    ],
)
def test_a_made_up_request_has_every_fact_that_policies_look_at(run, options, says):
    done = run("policy", "explain", *options)
    assert done.exit_code == 0, done.output
    assert says in " ".join(done.output.split())


def test_an_agreement_that_does_not_exist_is_no_option(run):
    assert run("policy", "explain", *AWAY, "--agreement", "baaa").exit_code == 2


@pytest.mark.parametrize(
    "node",
    [
        {"agreements": ["baaa"]},
        {"agreements": "baa, scc"},
        {"agreement": True},
        {"operator": "Example, Inc."},
        {"attested": "perhaps"},
    ],
)
def test_a_node_of_which_something_else_is_said_is_refused(node):
    entry = {"id": "n", "jurisdiction": "US", **node}
    with pytest.raises(ValueError, match="gateway"):
        Config(gateway={"nodes": [entry]})


@pytest.mark.parametrize("said", [{"risk": "V"}, {"data_classes": ["public"]}])
def test_a_model_of_which_something_else_is_said_is_refused(said):
    entry = {"roles": ["clinician"], "purposes": ["TREAT"], **said}
    with pytest.raises(ValueError, match="models"):
        Config(models={"m": entry})
