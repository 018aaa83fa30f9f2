"""Which provider and model may answer.

Rule: the destination comes from the settings only; nothing in a request names an address.
"""

from collections.abc import Mapping

import msgspec


class Target(msgspec.Struct, frozen=True):
    """One model at one provider; `upstream` is the provider's own name for it."""

    provider: str
    base_url: str
    upstream: str

    @property
    def identity(self) -> bytes:
        """What of a target enters the key: where the request goes, and to which model."""
        return msgspec.json.encode((self.base_url, self.upstream))


class Named(msgspec.Struct, frozen=True):
    """A model that the settings name: which provider has it, under which name."""

    provider: str
    upstream: str


class Routes(msgspec.Struct, frozen=True):
    """The table of the settings: base URLs by provider, models by the name that clients use."""

    base_urls: Mapping[str, str]
    default_provider: str
    models: Mapping[str, Named]

    def target(self, model: str) -> Target:
        """The target of the model that a client named; one that is not in the table goes to the default unchanged."""
        named = self.models.get(model) or Named(self.default_provider, model)
        return Target(named.provider, self.base_urls[named.provider], named.upstream)
