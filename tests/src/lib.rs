//! Harness and fakes for the tests that run against real services.
