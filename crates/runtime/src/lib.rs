//! Memory and pipelines of Windlass.
