"""The plan of a run: which packets pass, and where it ends."""

from trainer.packet import OPEN_END, Kind, Tag
from trainer.plan import Phase, Plan


def test_epochs_of_training_and_tests_in_order() -> None:
    plan = Plan(train_size=10, test_size=5, batch_size=4, epochs=2)
    assert list(plan.phases()) == [
        Phase(Kind.TRAIN, 1, 1, 2),
        Phase(Kind.TEST, 1, 1, 2),
        Phase(Kind.TRAIN, 2, 3, 4),
        Phase(Kind.TEST, 2, 1, 2),
    ]
    assert list(plan.all_tags()) == [
        Tag(Kind.TRAIN, 1, 4), Tag(Kind.TRAIN, 2, 4), Tag(Kind.TEST, 1, 4), Tag(Kind.TEST, 2, 1),
        Tag(Kind.TRAIN, 3, 4), Tag(Kind.TRAIN, 4, 4), Tag(Kind.TEST, 1, 4), Tag(Kind.TEST, 2, 1),
    ]  # fmt: skip


def test_max_steps_ends_the_run_with_a_test() -> None:
    plan = Plan(12, 4, 4, epochs=3, max_steps=4)
    assert [tag.step for tag in plan.all_tags() if tag.kind is Kind.TRAIN] == [1, 2, 3, 4]
    assert list(plan.all_tags())[-1] == Tag(Kind.TEST, 1, 4)


def test_tests_every_second_epoch_and_after_the_last() -> None:
    plan = Plan(4, 4, 4, epochs=5, eval_every=2)
    assert [phase.epoch for phase in plan.phases() if phase.kind is Kind.TEST] == [2, 4, 5]


def test_a_run_goes_on_in_the_middle_of_an_epoch() -> None:
    plan = Plan(12, 4, 4, epochs=2, done=4)
    assert list(plan.phases())[0] == Phase(Kind.TRAIN, 2, 5, 6)
    # A checkpoint is older than the test that follows its step, which is still to be done.
    test = Phase(Kind.TEST, 2, 1, 1)
    assert list(Plan(12, 4, 4, epochs=2, done=6).phases()) == [Phase(Kind.TRAIN, 2, 7, 6), test]
    assert [tag.kind for tag in Plan(12, 4, 4, epochs=2, done=6).all_tags()] == [Kind.TEST]


def test_an_early_end_cuts_a_pass_short_while_it_runs() -> None:
    plan = Plan(40, 4, 4, epochs=2)
    assert plan.early_end == OPEN_END
    seen = []
    for tag in plan.all_tags():
        seen.append(tag)
        if tag.step == 3:
            plan.stop(5, evaluate=False)
    assert [tag.step for tag in seen] == [1, 2, 3, 4, 5]
    assert plan.early_end == 5


def test_an_early_end_may_be_tested_and_never_prolongs_a_run() -> None:
    plan = Plan(8, 4, 4, epochs=1)
    plan.stop(1, evaluate=True)
    plan.stop(2, evaluate=False)
    assert list(plan.all_tags()) == [Tag(Kind.TRAIN, 1, 4), Tag(Kind.TEST, 1, 4)]
