"""Where records come from: sources behind one protocol, each with parts and positions."""
