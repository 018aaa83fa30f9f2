"""The cache of answers: the same prompt within its time, and who asks while it is asked."""

from proxy.simulate.answers import SWEPT_FROM, Answers
from tests.simulate.making import request

ONE = ((1, 10),)


def test_the_same_prompt_is_a_hit_once_it_was_answered_and_joins_before() -> None:
    answers = Answers(60)
    assert answers.find(request(0, *ONE)) is None
    answers.put(request(0, *ONE), done=5.0)
    assert answers.find(request(4.9, *ONE)) == "collapsed"
    assert answers.find(request(5.0, *ONE)) == "hit"


def test_an_answer_is_given_until_its_time_has_passed_and_a_hit_does_not_lengthen_it() -> None:
    answers = Answers(60)
    answers.put(request(0, *ONE), done=5.0)
    assert answers.find(request(64.9, *ONE)) == "hit"
    assert answers.find(request(65.0, *ONE)) is None


def test_another_length_or_other_blocks_are_another_prompt() -> None:
    answers = Answers(60)
    answers.put(request(0, *ONE), done=5.0)
    assert answers.find(request(9, *ONE, tokens=990)) is None
    assert answers.find(request(9, (1, 9), (20, 20))) is None


def test_prompts_without_ids_never_repeat() -> None:
    answers = Answers(60)
    answers.put(request(0, tokens=500), done=5.0)
    assert answers.find(request(9, tokens=500)) is None


def test_what_is_too_old_is_forgotten() -> None:
    answers = Answers(10)
    for index in range(5 * SWEPT_FROM):
        answers.put(request(index, (index, index)), done=index + 1.0)
    assert len(answers._done) <= SWEPT_FROM + 1
