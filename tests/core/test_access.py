"""Which keys are in force, and which paths may pass to an account that is not the client's own."""

import pytest

from proxy.core.access import NOBODY, Access, Grant, check_passthrough, digest
from proxy.errors import Forbidden, InvalidRequest, PenstockError, Unauthorized

TEAM = Grant("team", "team", passthrough=frozenset({b"files", b"vector_stores"}))
ACCESS = Access({digest(b"sk-team"): TEAM, digest(b"sk with spaces"): Grant("odd", "odd")})


def test_without_keys_everybody_is_nobody() -> None:
    assert Access({}).grant({}, 0.0) is NOBODY
    assert Access({}).grant({b"authorization": b"Bearer whatever"}, 0.0) is NOBODY


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer sk-team"},
        {b"authorization": b"bearer   sk-team "},
        {b"authorization": b"sk-team"},
        {b"api-key": b"sk-team"},
        {b"api-key": b"sk-other", b"authorization": b"Bearer sk-team"},
    ],
)
def test_a_key_is_known_however_it_is_shown(headers: dict[bytes, bytes]) -> None:
    assert ACCESS.grant(headers, 0.0) is TEAM


def test_a_key_may_hold_spaces_where_nothing_stands_before_it() -> None:
    assert ACCESS.grant({b"api-key": b"sk with spaces"}, 0.0).name == "odd"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"authorization": b""},
        {b"authorization": b"Bearer"},
        {b"authorization": b"Bearer sk-tea"},
        {b"authorization": b"Bearer sk-team2"},
        {b"authorization": b"Basic sk-team"},
        {b"authorization": digest(b"sk-team")},
        {b"authorization": b"Bearer " + digest(b"sk-team").hex().encode()},
        {b"authorization": b"Bearer \xff\xfe"},
        {b"x-api-key": b"sk-team"},
    ],
)
def test_there_is_one_refusal_for_everything_else(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(Unauthorized) as caught:
        ACCESS.grant(headers, 0.0)
    assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    assert caught.value.message == "No key of this proxy was given, or one that is not in force."


@pytest.mark.parametrize("path", [b"files", b"files/file-1/content", b"vector_stores/vs:1", b"files/a.b..c"])
def test_what_a_key_names_may_pass(path: bytes) -> None:
    check_passthrough(path, TEAM)


def refused(path: bytes, grant: Grant) -> type[PenstockError]:
    with pytest.raises(PenstockError) as caught:
        check_passthrough(path, grant)
    return type(caught.value)


@pytest.mark.parametrize("path", [b"batches", b"Files", b"filesx", b"file", b"assistants/files", b"\xff"])
def test_what_it_does_not_name_may_not(path: bytes) -> None:
    assert refused(path, TEAM) is Forbidden
    assert refused(b"files", NOBODY) is Forbidden


SEGMENTS = [
    b"..",
    b".",
    b"",
    b"a\\b",
    b"%2e%2E",
    b"%2E",
    b"a%2fb",
    b"%2F..",
    b"%5C",
    b"%5c..",
    b"..;",
    b"%252e%252e",
    b"..%20",
    b"%c0%af",
    b"%u002e",
    b"x%00",
]


@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize("path", [b"files/%s/batches", b"files/%s", b"%s/files"])
def test_a_path_that_servers_may_read_in_two_ways_is_refused(path: bytes, segment: bytes) -> None:
    assert refused(path % segment, TEAM) is InvalidRequest
