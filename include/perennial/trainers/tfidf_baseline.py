"""What any model must beat before it may be the first champion: guessing, and counting words. Not a trainer of the
fleet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from perennial.domain.example import TrainingRow
from perennial.domain.words import TaskKind
from perennial.errors import EmptyBatch


def majority_baseline(
    training: Sequence[TrainingRow], holdout: Sequence[TrainingRow], kind: TaskKind = TaskKind.CLASSIFICATION
) -> float:
    """Accuracy on the holdout of always answering the most frequent training label; for scores, the mean absolute
    error of the mean.

    Ties go to the label that sorts first. EmptyBatch when either side has no row.

    >>> from uuid import UUID
    >>> rows = [TrainingRow(example_id=UUID(int=i), task="t", text="x", label=label) for i, label in enumerate("aab")]
    >>> round(majority_baseline(rows, rows), 2)
    0.67
    """
    _check(training, holdout)
    if kind is TaskKind.SCORE:
        level = fmean(float(row.label) for row in training)
        return fmean(abs(level - float(row.label)) for row in holdout)
    counts = Counter(str(row.label) for row in training)
    answer = min(counts, key=lambda label: (-counts[label], label))
    return fmean(float(row.label == answer) for row in holdout)


def tfidf_baseline(
    training: Sequence[TrainingRow], holdout: Sequence[TrainingRow], kind: TaskKind = TaskKind.CLASSIFICATION
) -> float:
    """Accuracy on the holdout of a linear model on weighed words and word pairs; for scores, the mean absolute error
    of a ridge.

    Runs in an evaluation task; scikit-learn is imported here. Falls back on ``majority_baseline`` when the training
    rows hold one label only or no word at all. EmptyBatch when either side has no row.
    """
    _check(training, holdout)
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression, Ridge

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=50_000, token_pattern=r"(?u)\b\w+\b")
    labels = {str(row.label) for row in training}
    texts = [row.text for row in training]
    if len(labels) < 2 or not any(words.build_analyzer()(text) for text in texts):
        return majority_baseline(training, holdout, kind)
    x, held = words.fit_transform(texts), words.transform([row.text for row in holdout])
    if kind is TaskKind.SCORE:
        ridge = Ridge(alpha=1.0).fit(x, [float(row.label) for row in training])
        answers = ridge.predict(held).clip(0.0, 1.0)
        return fmean(abs(float(answer) - float(row.label)) for answer, row in zip(answers, holdout, strict=True))
    model = LogisticRegression(C=10.0, max_iter=1000).fit(x, [str(row.label) for row in training])
    return fmean(float(answer == row.label) for answer, row in zip(model.predict(held), holdout, strict=True))


def _check(training: Sequence[TrainingRow], holdout: Sequence[TrainingRow]) -> None:
    if not training or not holdout:
        raise EmptyBatch(
            "a baseline needs training rows and holdout rows; wait for examples, or lower the holdout share"
        )
