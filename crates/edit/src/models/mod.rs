//! Several models made into one, tensor by tensor.
//!
//! - `linear`: a weighted mean (model soups, Wortsman et al. 2022).
//! - `slerp`: along the arc between two tensors (Shoemake 1985).
//! - `task`: weighted sums of what models have learned beyond their base (task arithmetic, Ilharco et al. 2022).
//! - `ties`: the same of the largest changes only, where models agree on the sign (Yadav et al. 2023).
//! - `dare`, `dare-ties`: the same after changes were dropped at random and the others made larger (Yu et al. 2023).

mod survey;

use windlass_runtime::random::Philox;

pub use survey::{Survey, Whole};

/// Tensors that point nearly the same way are joined by a straight line.
const PARALLEL: f64 = 0.9995;

/// How models are made into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Linear,
    Slerp,
    Task,
    Ties,
    Dare,
    DareTies,
}

/// Every method by name.
pub const METHODS: [(&str, Method); 6] = [
    ("linear", Method::Linear),
    ("slerp", Method::Slerp),
    ("task", Method::Task),
    ("ties", Method::Ties),
    ("dare", Method::Dare),
    ("dare-ties", Method::DareTies),
];

impl Method {
    /// By name; `task-arithmetic` is `task`, and underscores are dashes.
    pub fn named(name: &str) -> Option<Method> {
        let name = name.replace('_', "-");
        let name = if name == "task-arithmetic" { "task" } else { &name };
        METHODS.iter().find(|(known, _)| *known == name).map(|(_, method)| *method)
    }

    /// Whether it adds up changes of a base.
    pub fn needs_base(self) -> bool {
        !matches!(self, Method::Linear | Method::Slerp)
    }

    /// Whether weights are divided by their sum if nothing else is said: as mergekit does.
    pub fn normalizes(self) -> bool {
        matches!(self, Method::Linear | Method::Ties)
    }

    /// Whether only some of the changes are used.
    pub fn is_sparse(self) -> bool {
        matches!(self, Method::Ties | Method::Dare | Method::DareTies)
    }

    fn elects(self) -> bool {
        matches!(self, Method::Ties | Method::DareTies)
    }

    fn drops(self) -> bool {
        matches!(self, Method::Dare | Method::DareTies)
    }
}

/// What is done to one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Blend {
    pub method: Method,
    /// One for each model.
    pub weights: Vec<f64>,
    /// The share of the changes of each model that is used, above 0 and at most 1.
    pub densities: Vec<f64>,
    /// Whether weights are divided by their sum; with signs elected, by the sum of those that agree.
    pub normalize: bool,
    /// What the sum of changes is multiplied with.
    pub lambda: f64,
    pub seed: u64,
}

/// Which part of which tensor a block is, so that what is random does not depend on how a tensor is cut.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub tensor: &'a str,
    /// Values of the tensor before the block.
    pub first: u64,
}

impl Blend {
    /// Why it cannot be done, if it cannot: settings out of range.
    pub fn problem(&self) -> Option<String> {
        let models = self.weights.len();
        if models == 0 || self.densities.len() != models {
            return Some("there is no model to merge".into());
        }
        if self.method == Method::Slerp && models != 2 {
            return Some(format!("slerp goes from one model to another, found {models}"));
        }
        if let Some(weight) = self.weights.iter().chain([&self.lambda]).find(|w| !w.is_finite()) {
            return Some(format!("a weight is a number, found {weight}"));
        }
        if let Some(density) = self.densities.iter().find(|d| !(**d > 0.0 && **d <= 1.0)) {
            return Some(format!("a density lies above 0 and is at most 1, found {density}"));
        }
        let sum: f64 = self.weights.iter().sum();
        if (self.normalize || self.method == Method::Slerp) && !self.method.elects() && sum.abs() < 1e-9 {
            return Some(format!("the weights add up to {sum}, which nothing can be divided by"));
        }
        None
    }

    /// Passes over a tensor before the first block can be made.
    pub fn passes(&self) -> usize {
        match self.method {
            Method::Slerp => 1,
            Method::Ties if self.densities.iter().any(|d| *d < 1.0) => 2,
            _ => 0,
        }
    }

    /// Makes a block. `base` is the base's values, or those of the first model where the method needs no base, and becomes the
    /// result; `others` are the models, without the first where it stands in `base`.
    pub fn apply(&self, place: Place, whole: &Whole, base: &mut [f32], others: &[&[f32]]) {
        match self.method {
            Method::Linear => self.linear(base, others),
            Method::Slerp => self.slerp(whole, base, others),
            _ => self.changes(place, whole, base, others),
        }
    }

    fn linear(&self, base: &mut [f32], others: &[&[f32]]) {
        let divisor = if self.normalize { self.weights.iter().sum() } else { 1.0 };
        for (i, value) in base.iter_mut().enumerate() {
            let terms = std::iter::once(*value).chain(others.iter().map(|other| other[i]));
            let sum: f64 = terms.zip(&self.weights).map(|(v, w)| f64::from(v) * w).sum();
            *value = (sum / divisor) as f32;
        }
    }

    fn slerp(&self, whole: &Whole, base: &mut [f32], others: &[&[f32]]) {
        let t = self.weights[1] / (self.weights[0] + self.weights[1]);
        let [dot, a, b] = whole.products;
        let cosine = if a > 0.0 && b > 0.0 { dot / (a.sqrt() * b.sqrt()) } else { 1.0 };
        let (from, to) = if cosine.abs() > PARALLEL {
            (1.0 - t, t)
        } else {
            let angle = cosine.clamp(-1.0, 1.0).acos();
            (((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin())
        };
        for (value, other) in base.iter_mut().zip(others[0]) {
            *value = (from * f64::from(*value) + to * f64::from(*other)) as f32;
        }
    }

    fn changes(&self, place: Place, whole: &Whole, base: &mut [f32], others: &[&[f32]]) {
        let kept: Vec<Vec<bool>> = match self.method.drops() {
            true => (0..others.len()).map(|model| self.kept(place, model, base.len())).collect(),
            false => Vec::new(),
        };
        let total: f64 = self.weights.iter().sum();
        let mut terms = vec![0.0f64; others.len()];
        for (i, value) in base.iter_mut().enumerate() {
            for (model, (term, other)) in terms.iter_mut().zip(others).enumerate() {
                let change = other[i] - *value;
                let used = match kept.get(model) {
                    Some(kept) => kept[i],
                    None => change.abs() >= whole.thresholds.get(model).copied().unwrap_or(0.0),
                };
                let rescale = if self.method.drops() { 1.0 / self.densities[model] } else { 1.0 };
                *term = if used { f64::from(change) * rescale * self.weights[model] } else { 0.0 };
            }
            *value = (f64::from(*value) + self.lambda * self.agree(&terms, total)) as f32;
        }
    }

    /// The sum of what the models want, of those that agree where signs are elected.
    fn agree(&self, terms: &[f64], total: f64) -> f64 {
        let sum: f64 = terms.iter().sum();
        if !self.method.elects() {
            return if self.normalize { sum / total } else { sum };
        }
        let (mut agreed, mut weights) = (0.0, 0.0);
        for (term, weight) in terms.iter().zip(&self.weights) {
            if *term != 0.0 && (*term > 0.0) == (sum >= 0.0) {
                agreed += term;
                weights += weight;
            }
        }
        if self.normalize && weights != 0.0 { agreed / weights } else { agreed }
    }

    /// Which values of a block of a model are kept: word `n` of the sequence of the tensor's name and the model decides on value `n`
    /// of the tensor.
    fn kept(&self, place: Place, model: usize, count: usize) -> Vec<bool> {
        let threshold = (self.densities[model] * 2f64.powi(32)).round() as u64;
        let mut random = Philox::new(self.seed).sequence(sequence(place.tensor, model));
        random.jump(u128::from(place.first / 4));
        let skip = (place.first % 4) as usize;
        let mut words = vec![0; skip + count];
        random.fill_words(&mut words);
        words[skip..].iter().map(|word| u64::from(*word) < threshold).collect()
    }
}

/// FNV-1a of a tensor's name, and the model's number.
fn sequence(tensor: &str, model: usize) -> u64 {
    let byte = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    tensor.as_bytes().iter().chain(&(model as u32).to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blend(method: Method, models: usize) -> Blend {
        Blend {
            method,
            weights: vec![1.0; models],
            densities: vec![1.0; models],
            normalize: method.normalizes(),
            lambda: 1.0,
            seed: 7,
        }
    }

    #[test]
    fn names_are_known_in_either_spelling() {
        assert_eq!(Method::named("dare_ties"), Some(Method::DareTies));
        assert_eq!(Method::named("task-arithmetic"), Some(Method::Task));
        assert_eq!(Method::named("soup"), None);
        assert!(METHODS.iter().all(|(name, method)| Method::named(name) == Some(*method)));
    }

    #[test]
    fn settings_out_of_range_are_told() {
        let mut b = blend(Method::Ties, 2);
        assert_eq!(b.problem(), None);
        b.densities[1] = 0.0;
        assert!(b.problem().unwrap().contains("found 0"));
        let mut b = blend(Method::Linear, 2);
        b.weights = vec![1.0, -1.0];
        assert!(b.problem().unwrap().contains("add up to 0"));
        assert!(blend(Method::Slerp, 3).problem().unwrap().contains("found 3"));
        b.weights[0] = f64::NAN;
        assert!(b.problem().unwrap().contains("NaN"));
    }

    #[test]
    fn what_is_dropped_does_not_depend_on_the_cut() {
        let mut b = blend(Method::Dare, 1);
        b.densities = vec![0.3];
        let whole = b.kept(Place { tensor: "t", first: 0 }, 0, 1000);
        for (first, count) in [(1, 10), (3, 5), (4, 4), (333, 667)] {
            let part = b.kept(Place { tensor: "t", first: first as u64 }, 0, count);
            assert_eq!(part, whole[first..first + count]);
        }
        let share = whole.iter().filter(|k| **k).count();
        assert!((250..350).contains(&share), "{share}");
        assert_ne!(whole, b.kept(Place { tensor: "u", first: 0 }, 0, 1000));
    }

    #[test]
    fn signs_are_elected_by_weight() {
        let mut b = blend(Method::Ties, 3);
        let mut values = [0.0f32, 1.0];
        b.apply(
            Place { tensor: "t", first: 0 },
            &Whole::default(),
            &mut values,
            &[&[3.0, 1.0], &[1.0, 2.0], &[-2.0, 0.0]],
        );
        assert_eq!(values, [2.0, 2.0], "the mean of 3 and 1; nothing agrees with zero but what is above it");
        b.weights = vec![0.1, 0.1, 1.0];
        b.normalize = false;
        let mut values = [0.0f32];
        b.apply(Place { tensor: "t", first: 0 }, &Whole::default(), &mut values, &[&[3.0], &[1.0], &[-2.0]]);
        assert_eq!(values, [-2.0]);
    }
}
