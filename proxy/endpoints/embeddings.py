"""`/v1/embeddings`: each input of a list is answered by itself, as far as it may be."""

from starlette.types import Receive

from proxy.core.asker import Asker
from proxy.core.dialect import EMBEDDINGS
from proxy.endpoints.answer import Answer
from proxy.endpoints.client import Attendance
from proxy.endpoints.desk import Desk
from proxy.endpoints.intake import Door
from proxy.endpoints.recorded import Options, Recorded
from proxy.gathered import Gathered, Listed
from proxy.piecemeal import Piecemeal
from proxy.pipeline import Live
from proxy.plans import Plan


class Embeddings(Recorded):
    """An ASGI endpoint."""

    def __init__(self, lists: Piecemeal, door: Door, options: Options, desk: Desk) -> None:
        super().__init__(EMBEDDINGS, lists.pipeline, door, options, desk)
        self._lists = lists

    async def _answer(self, plan: Plan, asker: Asker, receive: Receive, answer: Answer) -> None:
        if not plan.pieces:
            await super()._answer(plan, asker, receive, answer)
            return
        begun = await self._lists.begin(plan, asker)
        if isinstance(begun, Live):
            await self._live(plan.call, begun, receive, answer)
        elif begun.first is None:
            await self._listed(begun, answer)
        else:
            async with Attendance(receive) as client:
                with begun:
                    await self._settled(begun, answer)
            if client.left:
                answer.left()

    async def _settled(self, gathered: Gathered, answer: Answer) -> None:
        """Once all calls are over that it waits for."""
        if gathered.first is not None:
            answer.forwarded(gathered.first)
        instead = await self._lists.settle(gathered)
        if instead is None and not gathered.is_plain:
            await self._listed(gathered, answer)
            return
        live = instead or gathered.own[0]
        answer.forwarded(live)
        if instead is None:
            self._counted(gathered)
        await answer.live(gathered.plan.call, live, await live.reader.head())

    async def _listed(self, gathered: Gathered, answer: Answer) -> None:
        body = await self._lists.body(gathered)
        await answer.listed(self._counted(gathered), body)

    def _counted(self, gathered: Gathered) -> Listed:
        """What it came to, once that is in the metrics."""
        listed = self._lists.listed(gathered)
        self._desk.meter.inputs(listed.model, known=listed.known, joined=listed.joined, asked=listed.asked)
        return listed
