"""desk answers for each text: label.

Written by `perennial agent new` from 460 rows of tickets.csv. It is yours: change what you like.
`perennial agent check` says what is wrong with it, file and line.
"""

from perennial.fleet import Agent, Gates, Selection, Task
from perennial.trainers.ewc_text import EwcText

AGENT = Agent(
    name="desk",  # its DAGs: train_desk, rollout_desk
    owner="root",  # shown in Airflow
    # one model for each task; requests and records name it
    tasks=(
        Task(
            name="label",
            # a row with another label waits in quarantine; leave `labels` out to learn new ones from the data
            labels=(
                "account",  # 153 rows
                "billing",  # 141 rows
                "delivery",  # 166 rows
            ),
        ),
    ),
    # how it learns: a small head per task on a shared sentence encoder
    trainer=EwcText(),
    update_threshold=23,  # so many new rows start a training
    max_buffer_size=1000,  # beyond it the least valuable waiting rows leave
    selection=Selection(
        batch=500,  # rows that one training takes at most
        holdout_share=0.26,  # kept for measuring, never trained: about 119 rows of the smallest task
    ),
    # a candidate must hold against the champion on the holdout;
    # with fewer holdout rows than this a person decides about it
    gates=Gates(min_holdout=100),
)
