"""The version of Tether: of the library, the command and the workers."""

__version__ = "0.1.0"
