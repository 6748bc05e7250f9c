//! Shapes of schedules, as transformers and torch have them.

use std::f64::consts::PI;

use super::{At, Shape};
use crate::{Setting, Settings};

const FLOOR: Setting = Setting::new("floor", 0.0, "share of the rate at which it ends");

const fn shape(
    name: &'static str,
    about: &'static str,
    settings: &'static [Setting],
    share: fn(&Settings, &At) -> f64,
) -> Shape {
    Shape { name, about, settings, share, observes: false }
}

/// All shapes.
pub static SHAPES: &[Shape] = &[
    shape("constant", "the same rate for all steps", &[], |_, _| 1.0),
    shape("linear", "a straight line down", &[FLOOR], |s, at| falling(s.get("floor"), 1.0 - at.done)),
    shape(
        "cosine",
        "half a wave down (arXiv 1608.03983)",
        &[FLOOR, Setting::new("waves", 0.5, "how many waves there are")],
        |s, at| falling(s.get("floor"), wave(2.0 * s.get("waves") * at.done).max(0.0)),
    ),
    shape(
        "cosine_with_restarts",
        "half a wave down, several times",
        &[FLOOR, Setting::new("cycles", 1.0, "how often")],
        |s, at| match at.done < 1.0 {
            true => falling(s.get("floor"), wave((s.get("cycles") * at.done).fract())),
            false => s.get("floor"),
        },
    ),
    shape(
        "polynomial",
        "a power of what is left, down to an end",
        &[Setting::new("power", 1.0, "the exponent"), Setting::new("end", 1e-7, "the last learning rate")],
        |s, at| {
            let end = s.get("end") / at.learning_rate;
            end + (1.0 - end) * (1.0 - at.done).powf(s.get("power"))
        },
    ),
    shape(
        "exponential",
        "multiplied by the same number at every step",
        &[Setting::new("gamma", 0.999, "this number")],
        |s, at| s.get("gamma").powf(at.step),
    ),
    shape(
        "step",
        "multiplied by a number every so many steps",
        &[Setting::new("gamma", 0.1, "this number"), Setting::new("every", 1000.0, "steps")],
        |s, at| s.get("gamma").powf((at.step / s.get("every")).floor()),
    ),
    shape(
        "one_cycle",
        "up along half a wave, and down below where it began (arXiv 1708.07120)",
        &[
            Setting::new("rise", 0.3, "share of the steps in which it rises"),
            Setting::new("start", 25.0, "it begins at the rate divided by this"),
            Setting::new("end", 1e4, "it ends at its beginning divided by this"),
        ],
        one_cycle,
    ),
    shape(
        "wsd",
        "the same rate, and down in the last steps (arXiv 2404.06395)",
        &[
            FLOOR,
            Setting::new("decay", 0.1, "share of the steps in which it falls"),
            Setting::new("linear", 0.0, "1: in a straight line; 0: along half a wave"),
        ],
        |s, at| {
            let falls = (s.get("decay") * at.steps).round().max(1.0);
            let done = ((at.step - (at.steps - falls)) / falls).clamp(0.0, 1.0);
            falling(s.get("floor"), if s.is("linear") { 1.0 - done } else { wave(done) })
        },
    ),
    shape(
        "inverse_sqrt",
        "divided by the root of the steps",
        &[Setting::new("timescale", 10_000.0, "steps after which it is divided by the root of 2")],
        |s, at| 1.0 / (1.0 + at.step / s.get("timescale").max(1.0)).sqrt(),
    ),
    Shape {
        observes: true,
        ..shape("reduce_on_plateau", "lower where the loss does not fall any more", super::plateau::SETTINGS, |_, _| {
            1.0
        })
    },
];

/// From 1 at 0 to 0 at 1, along half a wave.
fn wave(done: f64) -> f64 {
    0.5 * (1.0 + (PI * done).cos())
}

/// From 1 down to `floor`, with `share` from 1 to 0.
fn falling(floor: f64, share: f64) -> f64 {
    floor + (1.0 - floor) * share
}

/// Ends at the last step, not after it.
fn one_cycle(settings: &Settings, at: &At) -> f64 {
    let start = 1.0 / settings.get("start");
    let end = start / settings.get("end");
    let top = (settings.get("rise") * at.steps - 1.0).max(0.0);
    let last = (at.steps - 1.0).max(0.0);
    if at.step <= top && top > 0.0 {
        return 1.0 + (start - 1.0) * wave(at.step / top);
    }
    let done = ((at.step - top) / (last - top).max(1e-9)).clamp(0.0, 1.0);
    end + (1.0 - end) * wave(done)
}
