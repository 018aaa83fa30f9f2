"""Which keys are in force, and which paths may pass to an account that is not the client's own."""

import msgspec
import pytest

from proxy.core.access import (
    NOBODY,
    Access,
    Grant,
    Guard,
    KnownKey,
    check_passthrough,
    digest,
    meant_key,
    meant_keys,
    revocable_key,
)
from proxy.errors import Forbidden, InvalidRequest, ModelNotAllowed, NotFound, PenstockError, Unauthorized

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


SHOWN = {b"authorization": b"Bearer sk-team"}


def test_a_key_is_refused_from_the_moment_on_at_which_it_expires() -> None:
    access = Access({digest(b"sk-team"): Grant("team", "team", expires=10.0)})
    assert access.grant(SHOWN, 9.9).name == "team"
    with pytest.raises(Unauthorized):
        access.grant(SHOWN, 10.0)


def test_once_there_are_keys_they_are_asked_for_even_if_none_is_in_force_any_more() -> None:
    access = Access({})
    access.replace({digest(b"sk-team"): TEAM}, any_made=True)
    assert access.grant(SHOWN, 0.0) is TEAM
    access.replace({}, any_made=True)
    for headers in (SHOWN, {}):
        with pytest.raises(Unauthorized):
            access.grant(headers, 0.0)


@pytest.mark.parametrize(
    ("models", "name", "may"),
    [
        (("*",), "anything", True),
        (("gpt-4.1", "economy"), "economy", True),
        (("gpt-4.1",), "gpt-4.1-mini", False),
        (("gpt-*",), "gpt-4.1", True),
        (("gpt-*",), "gpt-", True),
        (("gpt-*",), "o3", False),
        (("gpt",), "GPT", False),
        ((), "gpt", False),
    ],
)
def test_a_key_may_call_what_it_names_and_what_begins_so(models: tuple[str, ...], name: str, may: bool) -> None:
    grant = Grant("a", "a", models)
    assert grant.may_call(name) is may
    if may:
        grant.check_model(name)
        return
    with pytest.raises(ModelNotAllowed) as caught:
        grant.check_model(name)
    assert (caught.value.status, caught.value.param, caught.value.retry) == (403, "model", False)


def test_a_key_is_meant_by_its_id_or_its_name() -> None:
    key = KnownKey(Grant("team", "pk_1"), "ledger")
    assert [key.meant(said) for said in ("team", "pk_1", "pk_2", "")] == [True, True, False, False]


ADMIN, SCRAPER = {b"authorization": b"Bearer admin"}, {b"api-key": b"scraper"}
WRONG = [{}, {b"authorization": b""}, {b"authorization": b"Bearer admi"}, {b"api-key": digest(b"admin")}, SHOWN]


def guarded(guard: Guard, headers: dict[bytes, bytes]) -> tuple[str | None, str | None]:
    """The codes with which the admin's part and the metrics are refused."""
    codes: list[str | None] = []
    for check in (guard.check_admin, guard.check_scraper):
        try:
            check(headers)
            codes.append(None)
        except PenstockError as error:
            codes.append(error.code)
    return codes[0], codes[1]


def test_the_admin_key_opens_both_and_the_key_to_the_metrics_no_more_than_them() -> None:
    both = Guard(digest(b"admin"), digest(b"scraper"))
    assert guarded(both, ADMIN) == (None, None)
    assert guarded(both, SCRAPER) == ("invalid_api_key", None)
    assert guarded(Guard(digest(b"admin")), SCRAPER) == ("invalid_api_key", "invalid_api_key")
    assert guarded(Guard(metrics=digest(b"scraper")), SCRAPER) == ("forbidden", None)
    for headers in WRONG:
        assert guarded(both, headers) == ("invalid_api_key", "invalid_api_key")


@pytest.mark.parametrize("headers", [*WRONG, ADMIN])
def test_without_such_a_key_nobody_is_let_in_and_the_setting_is_named(headers: dict[bytes, bytes]) -> None:
    with pytest.raises(Forbidden, match=r"server\.admin_key_env"):
        Guard().check_admin(headers)
    with pytest.raises(Forbidden, match=r"server\.metrics_key_env nor server\.admin_key_env"):
        Guard().check_scraper(headers)


def test_whoever_is_refused_hears_the_same_words_whichever_key_was_wanted() -> None:
    said = set()
    for check in (lambda: ACCESS.grant({}, 0.0), lambda: Guard(digest(b"admin")).check_admin(SHOWN)):
        with pytest.raises(Unauthorized) as caught:
            check()
        said.add(caught.value.body())
    assert len(said) == 1


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


OWN = KnownKey(Grant("a", "a"), "settings")
FIRST = KnownKey(Grant("b", "pk_1"), "ledger", 1.0, revoked=2.0)
SECOND = KnownKey(Grant("b", "pk_2"), "ledger", 3.0)
SAME = KnownKey(Grant("a", "pk_3"), "ledger", 4.0)
KNOWN = [OWN, FIRST, SECOND, SAME]


def test_a_name_means_the_key_in_force_and_an_id_its_own() -> None:
    assert [meant_key(KNOWN, said) for said in ("a", "b", "pk_1", "pk_2")] == [OWN, SECOND, FIRST, SECOND]
    assert meant_keys(KNOWN, "b") == [FIRST, SECOND]
    assert meant_key([FIRST, msgspec.structs.replace(SECOND, revoked=5.0)], "b").grant.id == "pk_2"
    for find in (meant_key, meant_keys, revocable_key):
        with pytest.raises(NotFound, match="no key 'c'"):
            find(KNOWN, "c")


def test_a_key_of_the_settings_is_not_revoked_and_its_namesake_is_named() -> None:
    assert revocable_key(KNOWN, "b") is SECOND
    assert revocable_key(KNOWN, "pk_3") is SAME
    with pytest.raises(InvalidRequest, match=r"remove it there; the ledger's key of that name is pk_3\.$"):
        revocable_key(KNOWN, "a")
    with pytest.raises(InvalidRequest, match=r"remove it there\.$"):
        revocable_key([OWN, FIRST], "a")


def test_those_in_force_are_neither_replaced_nor_expired() -> None:
    one, brief = Grant("one", "one"), Grant("brief", "brief", expires=10.0)
    access = Access({b"1": one, b"2": brief})
    assert (list(access.in_force(9.0)), list(access.in_force(10.0))) == ([one, brief], [one])
    access.replace({}, any_made=True)
    assert list(access.in_force(9.0)) == []
