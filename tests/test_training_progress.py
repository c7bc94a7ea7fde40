"""Where a training stands: which validation was the best."""

from __future__ import annotations

from nmt.progress import Progress


def test_of_equal_validations_the_lower_loss_is_the_better() -> None:
    """A model that has learnt nothing yet has a BLEU of 0 again and again, and gets better."""
    progress = Progress()
    given = [
        (0.0, 7.0, True),
        (0.0, 6.0, True),
        (0.0, 6.5, False),
        (1.0, 6.6, True),
        (0.9, 5.0, False),
        (1.0, 6.0, True),
    ]
    for step, (bleu, loss, better) in enumerate(given, start=1):
        progress.step = step
        assert progress.note_scores({"bleu": bleu, "loss": loss}, "bleu") == better
        assert progress.best_step == (step if better else progress.best_step)
    assert (progress.best_score, progress.best_loss, progress.validations_since_best) == (1.0, 6.0, 0)


def test_of_an_earlier_version_no_loss_is_known() -> None:
    progress = Progress.from_state({"best_score": 3.0, "best_step": 7, "step": 9})
    assert not progress.note_scores({"bleu": 3.0, "loss": 1.0}, "bleu")
    assert progress.note_scores({"bleu": 3.1, "loss": 2.0}, "bleu")
    assert not progress.note_scores({"perplexity": 3.2, "loss": 2.0}, "perplexity")
    assert progress.validations_since_best == 1
