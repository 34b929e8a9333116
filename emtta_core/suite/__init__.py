"""The suite: a typed file that defines one evaluation."""

from emtta_core.suite.suite import Domain, Isolation, ModelChoice, Runtime, Suite, load_suite, parse_suite

__all__ = ["Domain", "Isolation", "ModelChoice", "Runtime", "Suite", "load_suite", "parse_suite"]
