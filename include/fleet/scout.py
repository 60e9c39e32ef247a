"""Scout reads incoming news: what it is about, how good it is, and how it sounds."""

from perennial.domain.words import TaskKind
from perennial.fleet import TRUSTED, Agent, Gates, Rollout, Selection, Task
from perennial.trainers.ewc_text import EwcText

AGENT = Agent(
    name="scout",
    owner="newsroom-ml",
    description="Reads incoming news articles: topic, quality and sentiment.",
    tasks=(
        # topics are learnt from the data: a new one makes a major version, which waits for a person
        Task(name="news_classification", aliases=("topic_classification",)),
        Task(name="quality_assessment", kind=TaskKind.SCORE),
        Task(name="sentiment", labels=("negative", "neutral", "positive"), aliases=("sentiment_analysis",)),
    ),
    trainer=EwcText(),
    max_buffer_size=20_000,
    selection=Selection(
        batch=3000,
        replay=200,
        holdout_share=0.25,
        holdout_max=600,
        # the newsroom's own people: not held to a share of a batch; what they send still meets the gates
        trusted_sources=(*TRUSTED, "*/archive", "*/desk", "*/intern", "*/editor"),
    ),
    gates=Gates(min_holdout=100),
    rollout=Rollout(steps=(0.05, 0.25, 0.50, 1.0), min_samples=20, step_seconds=4.0),
    tags=("news", "text"),
)
