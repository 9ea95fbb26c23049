"""`bedside policy check` and `test`: what is wrong with the packs, and whether their cases pass."""

from rich.table import Table

from bedside.cli.options import ConfigOption, open_site, say, show
from bedside.errors import BedsideError
from policies import Engine, PolicyError, check_packs, run_cases, untested_policies

NOTHING_IN_FORCE = "nothing is in force yet: the packs of the configuration were looked at"


def check(config: ConfigOption = None) -> None:
    """Validate the site's packs, their layout too, and show the bundle in force, if there is one."""
    site = open_site(config)
    try:
        with site.bundles().packs() as root:
            findings = check_packs(site.config.policy.packs, root=root)
            findings = findings or untested_policies(site.config.policy.packs, root=root)
    except PolicyError as error:
        raise BedsideError(str(error)) from error
    for finding in findings:
        say(str(finding))
    if findings:
        raise BedsideError(f"{len(findings)} findings in the site's packs")
    bundle, in_force = site.bundles().considered()
    engine = Engine(bundle)
    title = f"bundle v{bundle.version}" if in_force else "not in force"
    table = Table("policy", "effect", "title", "source", title=title)
    for text in sorted(engine.texts, key=lambda text: text.id):
        table.add_row(text.id, text.effect, text.title, text.citation)
    show(table)
    about = f"digest {engine.bundle_digest}" if in_force else NOTHING_IN_FORCE
    say(f"{len(engine.texts)} policies are valid; {about}")


def run_tests(config: ConfigOption = None) -> None:
    """Run the packs' own test cases, and name the policies that no case exercised."""
    site = open_site(config)
    try:
        with site.bundles().packs() as root:
            run = run_cases(site.config.policy.packs, root=root)
    except PolicyError as error:
        raise BedsideError(str(error)) from error
    for result in run.results:
        for problem in result.problems:
            say(f"{result.pack}: {result.name}: {problem}")
    for text in run.untested:
        say(f"{text.path}:{text.line}: no case exercises {text.id}")
    failed = sum(not result.passed for result in run.results)
    if failed:
        raise BedsideError(f"{failed} of {len(run.results)} cases failed")
    say(f"{len(run.results)} cases passed; {len(run.untested)} policies were not exercised")
