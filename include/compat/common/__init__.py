"""The predecessor's ``common``."""
