//! The curve of losses as a drawing (SVG).

use std::fmt::Write as _;
use std::path::Path;

use super::metrics::Point;
use crate::{Error, Result};

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 450.0;
/// Left, right, top and bottom of the curves.
const FRAME: [f64; 4] = [70.0, 780.0, 40.0, 400.0];
/// Points of a curve; more are drawn as the means of neighbours.
const POINTS: usize = 1000;

/// Writes the curves of `points` to `path`, which is complete or as it was.
pub fn write(path: &Path, points: &[Point]) -> Result<()> {
    let partial = path.with_extension("svg.partial");
    std::fs::write(&partial, draw(points)).map_err(|e| Error::io(&partial, e))?;
    std::fs::rename(&partial, path).map_err(|e| Error::io(path, e))
}

/// The drawing.
pub fn draw(points: &[Point]) -> String {
    let train: Vec<(f64, f64)> = points.iter().map(|point| (point.step as f64, point.loss)).collect();
    let eval: Vec<(f64, f64)> = points.iter().filter_map(|p| Some((p.step as f64, p.eval_loss?))).collect();
    let (train, eval) = (thinned(&train), thinned(&eval));
    let frame = Frame::around(train.iter().chain(&eval));
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\" text-anchor=\"middle\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>"
    );
    frame.axes(&mut svg);
    frame.curve(&mut svg, &train, "#1f77b4");
    frame.curve(&mut svg, &eval, "#d62728");
    for (x, y) in &eval {
        let (x, y) = frame.place(*x, *y);
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#d62728\"/>");
    }
    for (at, (name, color)) in [("train", "#1f77b4"), ("eval", "#d62728")].into_iter().enumerate() {
        if at == 0 || !eval.is_empty() {
            let x = 620.0 + 80.0 * at as f64;
            let _ = writeln!(svg, "<path d=\"M{x} 22h24\" stroke=\"{color}\" stroke-width=\"2\"/>");
            let _ = writeln!(svg, "<text x=\"{}\" y=\"26\" text-anchor=\"start\">{name}</text>", x + 30.0);
        }
    }
    svg + "</svg>\n"
}

/// Numbers only, at most [`POINTS`] of them.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite: Vec<(f64, f64)> = points.iter().copied().filter(|(_, loss)| loss.is_finite()).collect();
    let mean = |part: &[(f64, f64)]| {
        let count = part.len() as f64;
        (part.iter().map(|p| p.0).sum::<f64>() / count, part.iter().map(|p| p.1).sum::<f64>() / count)
    };
    finite.chunks(finite.len().div_ceil(POINTS).max(1)).map(mean).collect()
}

/// What part of the plane is shown.
struct Frame {
    steps: [f64; 2],
    losses: [f64; 2],
}

impl Frame {
    fn around<'p>(points: impl Iterator<Item = &'p (f64, f64)>) -> Frame {
        let empty = [f64::INFINITY, f64::NEG_INFINITY];
        let (mut steps, mut losses) = (empty, empty);
        for (step, loss) in points {
            steps = [steps[0].min(*step), steps[1].max(*step)];
            losses = [losses[0].min(*loss), losses[1].max(*loss)];
        }
        let spread = |[low, high]: [f64; 2]| match high - low {
            d if d > 0.0 && d.is_finite() => [low, high],
            _ if low.is_finite() => [low - 0.5, low + 0.5],
            _ => [0.0, 1.0],
        };
        Frame { steps: spread(steps), losses: spread(losses) }
    }

    fn place(&self, step: f64, loss: f64) -> (f64, f64) {
        let [left, right, top, bottom] = FRAME;
        let part = |value: f64, [low, high]: [f64; 2]| (value - low) / (high - low);
        (left + part(step, self.steps) * (right - left), bottom - part(loss, self.losses) * (bottom - top))
    }

    fn axes(&self, svg: &mut String) {
        let [left, right, top, bottom] = FRAME;
        for step in ticks(self.steps) {
            let (x, _) = self.place(step, self.losses[0]);
            let _ = writeln!(svg, "<path d=\"M{x:.1} {top}V{bottom}\" stroke=\"#ddd\"/>");
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{}\">{}</text>", bottom + 18.0, label(step));
        }
        for loss in ticks(self.losses) {
            let (_, y) = self.place(self.steps[0], loss);
            let _ = writeln!(svg, "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#ddd\"/>");
            let text = label(loss);
            let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>", left - 8.0, y + 4.0);
        }
        let _ = writeln!(svg, "<path d=\"M{left} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"#444\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\">step</text>", (left + right) / 2.0, bottom + 38.0);
        let _ = writeln!(svg, "<text x=\"{left}\" y=\"26\">loss</text>");
    }

    fn curve(&self, svg: &mut String, points: &[(f64, f64)], color: &str) {
        if points.is_empty() {
            return;
        }
        let places = points.iter().map(|(step, loss)| self.place(*step, *loss));
        let places: Vec<String> = places.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let points = places.join(" ");
        let _ = writeln!(svg, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>");
    }
}

/// Four to ten round numbers in a range.
fn ticks([low, high]: [f64; 2]) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|step| *step >= rough).unwrap_or(rough);
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last.min(first.saturating_add(20))).map(|times| times as f64 * step).collect()
}

/// A number without the noise of its last digits.
fn label(value: f64) -> String {
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(step: u64, loss: f64, eval_loss: Option<f64>) -> Point {
        Point { step, loss, eval_loss }
    }

    #[test]
    fn curves_stay_in_their_frame_and_ticks_are_round() {
        let eval = |step: u64| step.is_multiple_of(500).then_some(2.0 + 100.0 / step as f64);
        let points: Vec<Point> = (1..=5000).map(|step| point(step, 1.5 + 10.0 / step as f64, eval(step))).collect();
        let svg = draw(&points);
        let places: Vec<f64> = svg
            .split("points=\"")
            .skip(1)
            .flat_map(|rest| rest.split('"').next().unwrap_or_default().split([' ', ',']))
            .map(|number| number.parse().unwrap_or(f64::NAN))
            .collect();
        assert_eq!(places.len(), 2 * (1000 + 10));
        assert!(places.chunks(2).all(|p| (70.0..=780.0).contains(&p[0]) && (40.0..=400.0).contains(&p[1])));
        assert!(svg.contains(">1000</text>") && svg.contains(">eval</text>") && svg.ends_with("</svg>\n"));
        assert_eq!(ticks([1.5, 11.5]), [2.0, 4.0, 6.0, 8.0, 10.0]);
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        for points in [vec![], vec![point(1, f64::NAN, None)], vec![point(3, 2.0, Some(f64::INFINITY)); 2]] {
            let svg = draw(&points);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
