"""May this candidate serve? One question per gate, answered from score tables; pure arithmetic that fails closed."""
