"""`bedside policy`: what the site decides by, and why. One module for each kind of question."""

import typer

from bedside.cli.policy.check import check, run_tests
from bedside.cli.policy.controls import show_controls
from bedside.cli.policy.diff import show_differences
from bedside.cli.policy.explain import explain_decision
from bedside.cli.policy.lifecycle import (
    draft,
    history,
    keygen,
    publish,
    rollback,
    sign,
    status,
    withdraw,
)
from bedside.cli.policy.mutate import mutate
from bedside.cli.policy.prove import prove_invariants
from bedside.cli.policy.replay import replay, shadow_app

app = typer.Typer(help="Check the policies and ask them why.", no_args_is_help=True)
app.command()(check)
app.command("test")(run_tests)
app.command("controls")(show_controls)
app.command("explain")(explain_decision)
app.command("diff")(show_differences)
app.command("mutate")(mutate)
app.command("prove")(prove_invariants)
for step in (keygen, draft, withdraw, sign, publish, rollback, status, history):
    app.command()(step)
app.command()(replay)
app.add_typer(shadow_app, name="shadow")

__all__ = ["app"]
