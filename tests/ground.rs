//! Configuration, certificates, listeners and pages, on the real binary.
