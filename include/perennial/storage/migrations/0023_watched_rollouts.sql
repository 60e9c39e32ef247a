-- What rollout_watch asks every minute stays cheap however many rollouts there were: champions that bake, and reverts of the last weeks.
CREATE INDEX rollouts_watched ON perennial.rollouts (state, ended_at) WHERE state IN ('baking', 'reverted');
