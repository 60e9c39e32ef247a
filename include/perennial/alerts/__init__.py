"""What people are told: causes that stand now, alerts that were raised for them, and the way out."""
