"""`bedside policy mutate`: whether cases and proofs would notice a mistake in a policy."""

import sys
from typing import Annotated

import typer

from bedside.cli.options import ConfigOption, open_site, say
from bedside.cli.policy.controls import EveryOption
from bedside.errors import BedsideError
from policies import PolicyError
from policies.pack import SHIPPED
from policies.proofs.mutation import Fate, try_mutants
from policies.proofs.mutation_report import CAUGHT_MIN, as_markdown, caught_share, summary


def mutate(
    markdown: Annotated[bool, typer.Option(help="write the whole result as a page")] = False,
    every: EveryOption = False,
    config: ConfigOption = None,
) -> None:
    """Make mistakes in the site's packs, one at a time, and see whether a case or a proof notices."""
    site = open_site(config)
    try:
        with site.bundles().packs() as root:
            packs = SHIPPED if every else site.config.policy.packs
            trials = list(try_mutants(packs, root=root))
    except PolicyError as error:
        raise BedsideError(str(error)) from error
    if markdown:
        sys.stdout.write(as_markdown(trials))
    else:
        for trial in trials:
            if trial.fate is Fate.SURVIVED:
                say(f"{trial.mutant.id}: {trial.mutant.mistake}: {trial.why}")
        say(summary(trials))
    if caught_share(trials) < CAUGHT_MIN:
        raise BedsideError(f"less than {CAUGHT_MIN:.0%} were caught; add cases or invariants")
