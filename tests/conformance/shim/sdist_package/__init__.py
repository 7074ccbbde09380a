# Runs before any test module, in pytest and in the processes of Dramatiq's command line.
from tether_conformance.substitution import install

install()
