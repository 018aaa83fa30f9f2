"""Who may come in, and who answers at which path."""

from collections.abc import Iterable

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from proxy import __version__
from proxy.core.access import Access, Guard
from proxy.core.dialect import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES
from proxy.core.load import Load
from proxy.endpoints.console import About, Console
from proxy.endpoints.desk import Desk
from proxy.endpoints.embeddings import Embeddings
from proxy.endpoints.gate import Gate
from proxy.endpoints.intake import Door
from proxy.endpoints.models import Models
from proxy.endpoints.passthrough import Passthrough
from proxy.endpoints.recorded import Options, Recorded
from proxy.endpoints.refusals import Refusals
from proxy.endpoints.stream import ChatStream
from proxy.interfaces import Clock, Provider
from proxy.piecemeal import Piecemeal
from proxy.settings import Settings

# Some SDKs are given a base_url without /v1; Azure's has one of its own.
PREFIXES = ("/v1/", "/", "/openai/v1/")
AZURE_RESPONSES = "/openai/responses"  # which names no deployment
STREAM = "/chat/stream"

# Headers that pages may read; a browser takes no prefix.
EXPOSED = """
cache-status age x-request-id x-penstock-request-id x-penstock-model x-penstock-provider
x-penstock-cost-usd x-penstock-saved-usd x-penstock-saved-by x-penstock-prompt-cache-saved-usd
retry-after retry-after-ms x-should-retry openai-processing-ms openai-version
x-ratelimit-limit-requests x-ratelimit-remaining-requests x-ratelimit-reset-requests
x-ratelimit-limit-tokens x-ratelimit-remaining-tokens x-ratelimit-reset-tokens
"""


def door_of(settings: Settings, access: Access, guard: Guard, load: Load, clock: Clock) -> Door:
    server = settings.server
    return Door(
        origins=frozenset(server.cors_origins),
        loopback_only=server.loopback,
        max_body=server.max_body,
        body_timeout=server.body_timeout,
        access=access,
        wall=clock.wall,
        load=load,
        guard=guard,
    )


def gate_of(
    settings: Settings, lists: Piecemeal, provider: Provider, desk: Desk, door: Door, own: Iterable[Route]
) -> Gate:
    """All endpoints. `provider`: the default one; `own`: what is for whoever runs the proxy."""
    forward = tuple(sorted(name.lower().encode() for name in settings.server.forward_headers))
    options = Options(forward=forward, recorded_pace=settings.cache.replay == "recorded")
    pipeline = lists.pipeline
    chat = Recorded(CHAT, pipeline, door, options, desk)
    understood: dict[str, ASGIApp] = {
        CHAT.path: chat,
        **{each.path: Recorded(each, pipeline, door, options, desk) for each in (COMPLETIONS, RESPONSES)},
        EMBEDDINGS.path: Embeddings(lists, door, options, desk),
    }
    direct = {prefix + path: app for path, app in understood.items() for prefix in PREFIXES}
    direct[AZURE_RESPONSES] = understood[RESPONSES.path]
    direct[STREAM] = ChatStream(chat, settings.routing.default_model, desk)
    models = Models([*settings.routes, *settings.models], provider, door, desk)
    passthrough = Passthrough(provider, door, forward, desk, lists.pipeline.forget_stored)
    routes = [
        *(Route(path, app, methods=["POST"]) for path, app in direct.items()),
        *(
            Route(f"/openai/deployments/{{deployment:path}}/{path}", app, methods=["POST"])
            for path, app in understood.items()
        ),
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{model:path}", models, methods=["GET"]),
        Route("/v1/{path:path}", passthrough),
        *own,
        *Console(door, lambda: _about(settings, door)).routes,
    ]
    app = Starlette(routes=routes, exception_handlers=Refusals(desk.ids, desk.meter.turned_away).handlers)
    app.router.redirect_slashes = False  # its redirect goes to whatever Host the request names
    return Gate(app, direct)


def _about(settings: Settings, door: Door) -> About:
    default = settings.providers[settings.default_provider]
    return About(
        version=__version__,
        keys=door.access.any_made,
        provider_key=default.effective_auth == "client" and not door.access.any_made,
        default_model=settings.routing.default_model,
        mode=settings.cache.mode,
    )


def for_pages(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """Pages of these origins may call the proxy and read what it says of an answer."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        allow_private_network=True,
        expose_headers=EXPOSED.split(),
    )
