//! What traces show of a model: passes over tokens, their layers, and the memory that the process has.

use windlass_runtime::monitor::{Span, counter, enabled, span};
use windlass_runtime::system;

/// A pass over some tokens that come after `position` others. One token: decoding; several: a prompt.
pub fn forward(tokens: usize, position: usize) -> Span {
    if enabled() {
        let own = system::own_memory().unwrap_or(0);
        counter("own memory", own as f64);
    }
    let name = if tokens == 1 { "token" } else { "prompt" };
    span(name, "pass").with("tokens", tokens).with("position", position)
}

/// One layer of it.
pub fn layer(layer: usize) -> Span {
    span("layer", "layer").with("layer", layer)
}
