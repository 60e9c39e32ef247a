"""The gateway: answers with the champion and a share with the candidate, swaps them without a failed request, and
records."""
