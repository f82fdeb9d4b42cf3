"""A socket that is lent on is with one of two, and who lent it on can have it back."""

from __future__ import annotations

from collections.abc import Callable

from lattice.pouring import Loan, Sublender

LOAN = Loan(descriptor=7, length=100)


class Owner:
    """Lends its socket as long as it is willing."""

    left = 100

    def __init__(self, *, is_willing: bool = True) -> None:
        self.is_willing = is_willing
        self.came_back: list[tuple[int, bytes]] = []

    def lend(self, recall: Callable[[], None]) -> Loan | None:
        return LOAN if self.is_willing else None

    def give_back(self, moved: int, rest: bytes) -> None:
        self.came_back.append((moved, rest))


class Between(Sublender):
    """Lends on what its owner lends to it, for as long as it is needed by nobody else."""

    def __init__(self, owner: Owner | None = None) -> None:
        self._lender = owner

    def stop(self) -> None:
        self._end_loan()


def test_what_its_owner_lends_is_lent_on_and_given_back_to_it() -> None:
    owner = Owner()
    between = Between(owner)

    loan = between.lend(lambda: None)
    between.give_back(40, b"rest")

    assert (loan, between.left) == (LOAN, owner.left)
    assert owner.came_back == [(40, b"rest")]


def test_who_has_no_socket_or_must_not_lend_it_lends_none_on() -> None:
    recalls: list[str] = []
    for between in (Between(), Between(Owner(is_willing=False))):
        loan = between.lend(lambda: recalls.append("recalled"))
        between.stop()

        assert loan is None

    assert Between().left == 0
    assert not recalls


def test_who_ends_a_loan_has_the_socket_back_and_asks_for_it_once() -> None:
    owner = Owner()
    between = Between(owner)
    recalls: list[str] = []

    def recall() -> None:
        recalls.append("recalled")
        between.give_back(0, b"")

    between.stop()
    between.lend(recall)
    between.stop()
    between.stop()

    assert recalls == ["recalled"]
    assert owner.came_back == [(0, b"")]
