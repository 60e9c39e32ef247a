"""The predecessor's ``training_system.core``."""
