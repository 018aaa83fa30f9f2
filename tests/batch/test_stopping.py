"""What stops a batch before there is a loop."""

import os
import signal
from contextlib import closing

import pytest

from proxy.batch.stopping import STOPPED, STOPPERS, TO_GO_ON, stoppable


class Ending:
    """Notes that it was closed."""

    def __init__(self, noted: list[str]) -> None:
        self._noted = noted

    def close(self) -> None:
        self._noted.append("closed")


@pytest.mark.parametrize("number", STOPPERS)
def test_either_signal_ends_what_is_within_and_says_how_to_go_on(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(each) for each in STOPPERS]
    ended: list[str] = []
    with pytest.raises(SystemExit) as stopped, stoppable(TO_GO_ON), closing(Ending(ended)):
        os.kill(os.getpid(), number)
    assert (stopped.value.code, ended) == (STOPPED, ["closed"])
    assert capsys.readouterr().err == TO_GO_ON + "\n"
    assert [signal.getsignal(each) for each in STOPPERS] == before


def test_whoever_is_not_stopped_notices_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(each) for each in STOPPERS]
    with stoppable(TO_GO_ON):
        pass
    assert [signal.getsignal(each) for each in STOPPERS] == before
    assert capsys.readouterr() == ("", "")
