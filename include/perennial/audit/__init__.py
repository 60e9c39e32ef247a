"""Who decided what, on which data, and why: a record that is only ever added to."""
