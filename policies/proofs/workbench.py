"""A bundle laid out to be judged over every request: its policies and invariants, parsed and sorted.

Requests to place a model and requests to the API are two fields: they have different facts.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from policies.bundle import Bundle, validate
from policies.engine import ApiAction
from policies.entities import PLACE as PLACE_ACTION
from policies.invariants import Invariant, examine_invariants
from policies.proofs.axes import Axes, Partitioner
from policies.proofs.formula import Unprovable, actions_of, atoms_of, formula_of, parse_policies
from policies.proofs.judgement import Judgement, Rule
from policies.proofs.space import Space
from policies.proofs.tables import Tables
from policies.validation import PolicyText, parse_schema

Policy = dict[str, Any]


class Claimed(Struct, frozen=True):
    """An invariant, and what it is claimed of."""

    invariant: Invariant
    rule: Rule
    actions: frozenset[str] | None


class Field:
    """One kind of request, with everything that Cedar was asked about it."""

    def __init__(self, space: Space) -> None:
        """Ask nothing yet."""
        self.space = space
        self._partitioner = Partitioner(Tables(space))

    def concerns(self, actions: frozenset[str] | None) -> bool:
        """Return whether what is about these actions (None: any) is about requests of this kind."""
        own = (action.value for action in ApiAction) if self.space.api else (PLACE_ACTION["id"],)
        return actions is None or not actions.isdisjoint(own)

    def axes(self, rules: Iterable[Rule]) -> Axes:
        """Return the classes that these rules tell apart.

        Raises:
            Unprovable: if conditions tie too many facts together.
        """
        return self._partitioner.axes(atom for rule in rules for atom in atoms_of(rule.formula))


class Workbench:
    """The policies and invariants of one bundle, and both fields of requests."""

    def __init__(self, bundle: Bundle) -> None:
        """Parse and check `bundle`.

        Raises:
            BundleInvalid: if it does not validate.
            Unprovable: if a policy looks at what cannot be enumerated.
        """
        self.bundle = bundle
        self.texts = validate(bundle)
        self.policies = parse_policies(bundle.policies)
        self.claimed = _claimed(bundle)
        asked = [*self.policies, *parse_policies(bundle.invariants)]
        self.place = Field(Space([bundle], asked))
        self.api = Field(Space([bundle], asked, api=True))
        self._actions = [actions_of(policy) for policy in self.policies]
        self._rules = [
            rule_of(text, each) for text, each in zip(self.texts, self.policies, strict=True)
        ]

    @property
    def fields(self) -> tuple[Field, Field]:
        """Both kinds of requests."""
        return self.place, self.api

    def rules(self, field: Field, changed: Mapping[int, Rule | None] | None = None) -> tuple[Rule, ...]:
        """Return the rules about requests of a kind, some changed or (None) left out, by number."""
        changed = changed or {}
        rules = (
            changed.get(n, rule)
            for n, rule in enumerate(self._rules)
            if field.concerns(self._actions[n])
        )
        return tuple(rule for rule in rules if rule is not None)

    def claims(self, field: Field) -> tuple[Claimed, ...]:
        """Return the invariants about requests of a kind."""
        return tuple(claim for claim in self.claimed if field.concerns(claim.actions))

    def judge(self, field: Field, changed: Mapping[int, Rule | None] | None = None) -> Judgement:
        """Return what the rules decide, on axes that suit the invariants too."""
        rules = self.rules(field, changed)
        axes = field.axes([*rules, *(claim.rule for claim in self.claims(field))])
        return Judgement(axes, rules)


def rule_of(text: PolicyText, policy: Policy, world: int = 0) -> Rule:
    """Return the rule of one policy in Cedar's JSON form.

    Raises:
        Unprovable: naming the policy, if it looks at what cannot be enumerated.
    """
    try:
        return Rule(text, formula_of(policy, world))
    except Unprovable as error:
        raise Unprovable(f"{text.path}:{text.line}: {text.id}: {error}") from error


def _claimed(bundle: Bundle) -> tuple[Claimed, ...]:
    schema, _ = parse_schema(bundle.schema)
    invariants, _ = examine_invariants(bundle.invariants, schema, bundle.groups)
    claimed = []
    for invariant, policy in zip(invariants, parse_policies(bundle.invariants), strict=True):
        text = PolicyText(
            id=invariant.id,
            title=invariant.title,
            citation=invariant.citation,
            effect=policy["effect"],
            obligations=invariant.obligations,
            path=invariant.path,
            line=invariant.line,
        )
        claimed.append(Claimed(invariant, rule_of(text, policy), actions_of(policy)))
    return tuple(claimed)
