"""What Cedar says of each atom for every combination of what it reads."""

import json
from collections.abc import Iterable
from typing import Any, Final

import cedarpy
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from policies.proofs.formula import Atom, Unprovable, itself_atom, member_atom, membership_of
from policies.proofs.space import Space

FALSE: Final = 0
TRUE: Final = 1
ERROR: Final = 2

# 20 us each: half a minute for one atom.
ASKED_MAX: Final = 1_500_000
BATCH: Final = 4096

Table = NDArray[np.uint8]


class _Membership(Struct, frozen=True):
    """`left in set`: the variable that the set depends on, its members, and what to ask of each.

    `itself` is true wherever `left` can be evaluated.
    """

    variable: str
    sets: tuple[tuple[tuple[str, str], ...] | None, ...]
    itself: Atom
    asked: dict[tuple[str, str], Atom]

    def atoms(self) -> tuple[Atom, ...]:
        """Return all that Cedar has to be asked."""
        return (self.itself, *self.asked.values())


class Tables:
    """The values of atoms in one space, each worked out once.

    A table has one axis for each variable that the atom reads, in the order of the space.
    """

    def __init__(self, space: Space) -> None:
        """Ask nothing yet."""
        self.space = space
        self._tables: dict[Atom, Table] = {}

    def of(self, atom: Atom) -> Table:
        """Return the table of one atom, which must have been asked."""
        return self._tables[atom]

    def ask(self, atoms: Iterable[Atom]) -> None:
        """Ask Cedar about the atoms that it was not asked about yet.

        Raises:
            Unprovable: if one reads too much.
        """
        together: dict[tuple[int, tuple[str, ...]], list[Atom]] = {}
        memberships: list[tuple[Atom, _Membership]] = []
        missing = [atom for atom in dict.fromkeys(atoms) if atom not in self._tables]
        for atom in missing:
            membership = self._membership(atom)
            if membership is None:
                together.setdefault((atom.world, self.space.reads(atom)), []).append(atom)
            else:
                memberships.append((atom, membership))
        for (world, reads), group in together.items():
            shape = tuple(len(self.space.domains[name].values) for name in reads)
            if int(np.prod(shape, dtype=np.int64)) > ASKED_MAX:
                raise Unprovable(
                    f"one condition reads {', '.join(reads)} together, of which there are more than"
                    f" {ASKED_MAX} combinations; split it"
                )
            values = self._ask_together(world, reads, group)
            for column, atom in enumerate(group):
                self._tables[atom] = values[:, column].reshape(shape)

        for atom, membership in memberships:
            self.ask(membership.atoms())
            self._tables[atom] = self._expand(atom, membership)

    def _membership(self, atom: Atom) -> "_Membership | None":
        """Return how `left in set` follows from `left in entity` for each entity that sets hold.

        That is what Cedar means by it: `left` is in a set if it is in some entity of the set. So the
        combinations of both sides need not be asked for.
        """
        found = membership_of(atom)
        held = found and self.space.members(found[1], atom.world)
        if found is None or held is None:
            return None
        variable, sets = held
        entities = dict.fromkeys(entity for each in sets if each for entity in each)
        asked = {entity: member_atom(found[0], entity, atom.world) for entity in entities}
        itself = itself_atom(found[0], atom.world)
        independent = variable not in self.space.reads(itself)
        return _Membership(variable, sets, itself, asked) if independent else None

    def _expand(self, atom: Atom, membership: "_Membership") -> Table:
        tables = {entity: self._tables[each] for entity, each in membership.asked.items()}
        errs = np.where(self._tables[membership.itself] == ERROR, ERROR, FALSE).astype(np.uint8)
        columns = []
        for members in membership.sets:
            column = np.full_like(errs, ERROR) if members is None else errs
            for entity in members or ():
                column = np.maximum(column, tables[entity])
            columns.append(column)
        reads = self.space.reads(atom)
        place = reads.index(membership.variable)
        return np.stack(columns, axis=place)

    def _ask_together(self, world: int, reads: tuple[str, ...], atoms: list[Atom]) -> Table:
        policies = cedarpy.PolicySet.from_str("\n".join(map(_as_policies, atoms)))
        rows: list[list[int]] = []
        requests: list[dict[str, Any]] = []
        entities: dict[tuple[str, str], dict[str, Any]] = {}

        def flush() -> None:
            store = self.space.store(world, list(entities.values()))
            results = cedarpy.is_authorized_batch(requests, policies, store)
            rows.extend(_row(result, len(atoms)) for result in results)
            requests.clear()
            entities.clear()

        for combination in self.space.combinations(reads):
            request, about = self.space.request(combination, world, reads)
            named = {(each["uid"]["type"], each["uid"]["id"]): each for each in about}
            # One model may be granted other roles in the next request; a store knows it once.
            clash = any(entities.get(uid, each) != each for uid, each in named.items())
            if clash or len(requests) >= BATCH:
                flush()
            entities.update(named)
            requests.append(request)
        flush()
        return np.array(rows, dtype=np.uint8)


def _as_policies(atom: Atom) -> str:
    """Return two policies: one applies where the atom is true, one where it is false."""
    body = json.loads(atom.body)
    return "\n".join(_as_policy(each) for each in (body, {"!": {"arg": body}}))


def _as_policy(body: dict[str, Any]) -> str:
    anything = {"op": "All"}
    policy = {
        "effect": "permit",
        "principal": anything,
        "action": anything,
        "resource": anything,
        "conditions": [{"kind": "when", "body": body}],
    }
    document = {"templates": {}, "staticPolicies": {"atom": policy}, "templateLinks": []}
    return str(cedarpy.policies_from_json_str(json.dumps(document)))


def _row(result: cedarpy.AuthzResult, count: int) -> list[int]:
    row = [ERROR] * count
    for reason in result.diagnostics.reasons:
        number = int(reason.removeprefix("policy"))
        row[number // 2] = FALSE if number % 2 else TRUE
    return row
