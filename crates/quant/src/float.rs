//! Slices of one float type to another.
