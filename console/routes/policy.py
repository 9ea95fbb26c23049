"""Policies: what is in force, its past, what another bundle would change, and replays of requests."""

import asyncio
from typing import Any, Final

from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from audit.records import PolicyStep
from audit.steps import step_record
from console.bundles import BundleShelf
from console.errors import FormInvalid
from console.forms import days, required
from console.pages.policy import Comparison, comparison, policy_page
from console.permission import Page
from console.tasks import Task
from console.web import Form, Visit, Web
from coordinator.policy.recorded import Period, ReplayRun, replay_logs
from policies import ApiAction, Bundle
from policies.proofs import differences

QUESTION: Final = "policy"


def policy_routes(web: Web) -> list[Route]:
    """Return the routes."""
    return _Policies(web).routes()


class _Policies:
    """Shows policies, and asks what they would do; questions are recorded before they are worked on."""

    def __init__(self, web: Web) -> None:
        self._web = web
        self._parts = web.parts
        self._shelf = BundleShelf(web.parts.desk.folder)

    def routes(self) -> list[Route]:
        """Return where each is."""
        read, replay = ApiAction.POLICY_READ, ApiAction.POLICY_REPLAY
        return [
            Route("/policy", self._web.page(read, self.show), methods=["GET"]),
            Route("/policy/diff", self._web.form(read, self.diff), methods=["POST"]),
            Route("/policy/replay", self._web.form(replay, self.replay), methods=["POST"]),
            Route("/policy/questions/{id}", self._web.page(read, self.answer), methods=["GET"]),
        ]

    async def show(self, visit: Visit) -> Response:
        parts = self._parts
        page = await asyncio.to_thread(policy_page, parts.engine(), parts.document(), parts.desk)
        asked = parts.tasks.of(visit.name, QUESTION)
        return self._web.render("policy.html", visit, here=Page.POLICY, page=page, asked=asked)

    async def diff(self, visit: Visit, fields: Form) -> Response:
        before = await self._bundle(required(fields, "before"))
        after = await self._bundle(required(fields, "after"))

        async def work(task: Task) -> Comparison:
            task.progress("comparing every combination of facts", 0.2)
            return comparison(await asyncio.to_thread(differences, before, after))

        title = f"Version {before.version} against version {after.version}"
        return await self._ask(visit, PolicyStep.DIFF, after, title, work)

    async def replay(self, visit: Visit, fields: Form) -> Response:
        bundle = await self._bundle(required(fields, "bundle"))
        since, until = days(fields)
        period = Period(since=since, until=until)

        async def work(task: Task) -> ReplayRun:
            task.progress("verifying the logs and deciding each request again", 0.2)
            return await asyncio.to_thread(replay_logs, self._parts.published_sources(), bundle, period)

        title = f"Replay under version {bundle.version}"
        return await self._ask(visit, PolicyStep.REPLAY, bundle, title, work)

    async def answer(self, visit: Visit) -> Response:
        task = self._parts.tasks.find(visit.name, visit.request.path_params["id"])
        if task is None:
            return self._web.problem(
                404, "No such question", "It was not asked, or is kept no longer: ask again.", visit
            )
        template = "question_part.html" if visit.partial else "question.html"
        return self._web.render(template, visit, here=Page.POLICY, task=task)

    async def _ask(
        self,
        visit: Visit,
        step: PolicyStep,
        bundle: Bundle,
        title: str,
        work: Any,  # noqa: ANN401 each question's own answer
    ) -> Response:
        record = step_record(step, bundle=bundle.digest(), version=bundle.version, principal=visit.name)
        task = Task(visit.name, QUESTION, title, await self._parts.recorder.append(record))
        self._parts.tasks.submit(task, work)
        return RedirectResponse(f"/policy/questions/{task.id}", 303)

    async def _bundle(self, digest: str) -> Bundle:
        bundle = await asyncio.to_thread(self._shelf.find, digest)
        if bundle is None:
            raise FormInvalid("there is no bundle of this digest here any more")
        return bundle
