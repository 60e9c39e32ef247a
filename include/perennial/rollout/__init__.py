"""How a candidate meets traffic: the plan, the states, the verdicts, and the one place where they are written down."""
